"""The renderer: boxes, depths, hidden shares and shadows against what geometry says."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vigorl_nano.rooms.draw import draw, eye_of, look
from vigorl_nano.rooms.objects import COLOURS, KINDS, sample_names
from vigorl_nano.rooms.ray_caster import (
    BALL,
    BOX,
    CONE,
    Group,
    ParallelProjection,
    Solid,
    Table,
    cast,
)
from vigorl_nano.rooms.scene import (
    FOCAL,
    SIDE,
    Camera,
    Room,
    Scene,
    Thing,
    are_apart,
    corners,
    distance,
    furnish,
    move_thing,
    turn_camera,
)
from vigorl_nano.rooms.shapes import furniture

LIGHT = (0.62, 0.62, -0.48)
ROOM = Room(3.6, 7.0, (226, 218, 204), (178, 172, 164), "tiles", LIGHT, 4)
BALL_AHEAD = Thing("red", "ball", 0.0, 4.0, 0.75, 1.0, 0.0)


def scene_of(*things: Thing, light: tuple[float, float, float] = LIGHT) -> Scene:
    """Things before a level camera one metre up."""
    return Scene(replace(ROOM, light=light), Camera(0.0, 0.0, 1.0), things)


def sampled_scenes(count: int, seed: int, names: int) -> list[Scene]:
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        scene = furnish(rng, sample_names(rng, names, names)[0])
        if scene is not None:
            found.append(scene)
    return found


@pytest.mark.parametrize(("side", "over"), [(196, 2), (392, 2)])
def test_a_ball_straight_ahead_lands_where_perspective_puts_it(side, over):
    rendering = draw(scene_of(BALL_AHEAD), side, over)
    radius = FOCAL * 0.25 / np.sqrt(4.0**2 - 0.25**2)
    expected = [SIDE / 2 - radius, SIDE / 2 - radius, SIDE / 2 + radius, SIDE / 2 + radius]
    assert rendering.boxes["red ball"] == pytest.approx(expected, abs=1.0)
    assert rendering.image.size == (side, side)
    red, green, blue = rendering.image.getpixel((side // 2, side // 2))
    assert red > 2 * max(green, blue)


def test_depth_is_along_the_view_in_the_buffer_and_to_the_middle_in_the_facts():
    scene = scene_of(BALL_AHEAD)
    hits = cast(Table.of(furniture(scene)), eye_of(scene, 98))
    assert hits.depth[49, 49] == pytest.approx(3.75, abs=0.005)
    aside = scene_of(replace(BALL_AHEAD, x=1.5))
    assert look(aside).depths["red ball"] == pytest.approx(np.hypot(4.0, 1.5))
    assert look(aside).depths["red ball"] == distance(aside, aside.things[0])


def test_boxes_and_shown_are_those_of_the_number_buffer():
    for scene in sampled_scenes(3, 5, 6):
        rendering = draw(scene, 196, 1)
        table = Table.of(furniture(scene))
        owner = table.owner[cast(table, eye_of(scene, 196)).solid]
        for number, thing in enumerate(scene.things, 1):
            rows, columns = np.nonzero(owner == number)
            edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert rendering.boxes[thing.name] == tuple(2.0 * edge for edge in edges)
            alone = Table.of([g for g in furniture(scene) if g.owner == number])
            whole = np.count_nonzero(cast(alone, eye_of(scene, 196)).solid)
            assert rendering.shown[thing.name] == pytest.approx(len(rows) / whole)


def test_a_nearer_object_hides_a_farther_one_and_never_the_other_way_round():
    box = Thing("blue", "box", 0.12, 2.5, 0.7, 0.9, 0.3)
    alone, both = look(scene_of(BALL_AHEAD)), look(scene_of(BALL_AHEAD, box))
    assert alone.shown["red ball"] == 1.0 and alone.clear == {"red ball"}
    assert both.shown["red ball"] < 0.6 and both.shown["blue box"] == 1.0
    assert both.clear == {"blue box"}
    assert both == look(scene_of(box, BALL_AHEAD))


def test_clear_leaves_out_what_the_frame_cuts_and_what_is_too_small():
    cut = replace(BALL_AHEAD, x=2.35)
    assert look(scene_of(cut)).shown["red ball"] == 1.0
    assert look(scene_of(cut)).clear == frozenset()
    small = replace(BALL_AHEAD, scale=0.5, z=6.0)
    assert look(scene_of(small)).clear == draw(scene_of(small), 196).clear == frozenset()
    behind = turn_camera(scene_of(BALL_AHEAD), np.pi)
    assert look(behind).boxes == {} and look(behind).shown == {"red ball": 0.0}


@pytest.mark.parametrize("side", [1, -1])
def test_a_shadow_falls_on_the_side_away_from_the_light(side):
    light = (side * 0.62, 0.62, -0.48)
    ball = Thing("blue", "ball", 0.0, 3.4, 0.0, 1.2, 0.0)
    empty, full = (
        np.asarray(draw(scene_of(*things, light=light), 196).image, float).mean(axis=2)
        for things in ((), (ball,))
    )
    x1, _, x2, y2 = (int(v / 2) for v in look(scene_of(ball)).boxes["blue ball"])
    rows, darker = slice(y2 - 8, y2 + 2), (empty - full) / empty
    left, right = darker[rows, x1 - 14 : x1 - 2], darker[rows, x2 + 2 : x2 + 14]
    away, towards = (left, right) if side > 0 else (right, left)
    assert away.max() > 0.25 and away.mean() > 2 * towards.mean()


def test_an_object_casts_its_shadow_on_another_one():
    shelf = Thing("yellow", "shelf", 0.75, 3.4, 0.0, 1.0, 1.57)
    sofa = Thing("green", "sofa", -0.5, 3.6, 0.0, 1.0, 0.0)
    light = (0.75, 0.6, -0.2)
    lit, both = scene_of(sofa, light=light), scene_of(sofa, shelf, light=light)
    table = Table.of(furniture(both))
    mine = table.owner[cast(table, eye_of(both, 196)).solid] == 1
    before, after = (np.asarray(draw(s, 196).image, float)[mine, 1] for s in (lit, both))
    darker = after < 0.93 * before
    assert 0.1 < darker.mean() < 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_the_named_colour_is_told_by_hue_in_light_and_in_shade(kind):
    hues = {name: colorsys.rgb_to_hsv(*(c / 255 for c in rgb))[0] for name, rgb in COLOURS.items()}
    for light in (LIGHT, (-0.62, 0.62, 0.48)):
        for colour in COLOURS:
            scene = scene_of(Thing(colour, kind, 0.0, 3.2, 0.0, 1.0, 0.4), light=light)
            table = Table.of(furniture(scene))
            mine = table.owner[cast(table, eye_of(scene, 98)).solid] == 1
            pixels = np.asarray(draw(scene, 98).image)[mine] / 255
            seen = [colorsys.rgb_to_hsv(*p) for p in pixels]
            near = [
                min(hues, key=lambda n: min(d := abs(hues[n] - h), 1 - d))
                for h, s, _ in seen
                if s > 0.3
            ]
            assert near.count(colour) > 0.6 * len(pixels), (colour, kind)


def test_the_same_scene_gives_the_same_bytes_and_boxes_do_not_depend_on_the_side():
    scene = sampled_scenes(1, 8, 5)[0]
    first, again = draw(scene, 196), draw(scene, 196)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.image.mode == "RGB" and isinstance(first.image, Image.Image)
    large = draw(scene, SIDE, 1)
    for name, box in first.boxes.items():
        assert large.boxes[name] == pytest.approx(box, abs=1.01)


def test_what_is_clear_at_a_look_is_clear_in_the_image():
    for scene in sampled_scenes(8, 9, 6):
        quick, fine = look(scene), draw(scene, 196, 2)
        assert quick.clear <= fine.clear
        for name in quick.clear:
            assert quick.boxes[name] == pytest.approx(fine.boxes[name], abs=4.0)


def test_eight_objects_mostly_fit_and_stand_in_the_room_apart_from_one_another():
    rng, fitted = np.random.default_rng(2), 0
    for _ in range(30):
        names, _ = sample_names(rng, 8, 8)
        assert len(set(names)) == 8
        scene = furnish(rng, names)
        if scene is None:
            continue
        fitted += 1
        floors = [corners(t) for t in scene.things]
        for i, floor in enumerate(floors):
            assert np.abs(floor[:, 0]).max() <= scene.room.half_width
            assert floor[:, 1].max() <= scene.room.depth
            assert all(are_apart(floor, other, 0.0) for other in floors[:i])
    assert fitted > 15


def test_a_moved_object_keeps_its_looks_and_a_turn_to_the_right_shifts_things_left():
    rng = np.random.default_rng(4)
    scene = sampled_scenes(1, 4, 4)[0]
    after = move_thing(rng, scene, 1)
    assert after is not None and after.things[0] == scene.things[0]
    old, new = scene.things[1], after.things[1]
    assert replace(new, x=old.x, z=old.z) == old and np.hypot(new.x - old.x, new.z - old.z) > 0
    ahead = scene_of(BALL_AHEAD)
    right = look(turn_camera(ahead, 0.2)).boxes["red ball"]
    assert right[2] < look(ahead).boxes["red ball"][0] + 5


def test_rays_meet_the_three_solids_at_their_surfaces():
    """Parallel rays straight down: the depth of each solid's top, and the area it covers."""
    shapes = {
        BOX: ((-0.5, 0.0, -0.3, 0.5, 0.8, 0.3), 0.8, 0.6),
        CONE: ((0.0, 0.0, 0.0, 0.5, 0.8, 0.2), 0.8, np.pi * 0.25),
        BALL: ((0.0, 0.4, 0.0, 0.5, 0.4, 0.3), 0.8, np.pi * 0.15),
    }
    for shape, (size, top, area) in shapes.items():
        table = Table.of([Group(1, 1.0, 0.0, 2.0, 0.6, (Solid(shape, size, (9, 9, 9), "matt"),))])
        light = np.array([1e-3, 1.0, 1e-3])
        sun = ParallelProjection(200, light / np.linalg.norm(light), table.corners.reshape(-1, 3))
        hits = cast(table, sun)
        height = -(hits.depth[hits.solid > 0] + sun.start)
        assert height.max() == pytest.approx(top, abs=0.01)
        assert hits.own[1] * float(np.prod(sun.step)) == pytest.approx(area, rel=0.03)
