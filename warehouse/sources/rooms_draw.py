"""Draws a scene with Pillow, and says exactly which pixels of each object can be seen.

Objects are small meshes, projected with real perspective, shaded by one lamp and painted from far
to near; a second canvas painted in the same order with object numbers gives the visible boxes:

    picture = draw(scene)
    picture.image, picture.boxes["red ball"], picture.clear
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .rooms_scene import COLOURS, FOCAL, SIDE, Scene, Thing, to_pixels

OVER = 2  # drawn at twice the size, then averaged down: smooth edges without a slow renderer
PLINTH = 250  # object number of a plinth on the number canvas; named objects count from 1
CEILING = 2.9
METAL = (92, 90, 94)
STONE = (205, 201, 194)
Box = tuple[float, float, float, float]
Part = tuple[np.ndarray, list[list[int]], tuple[int, int, int]]  # vertices, faces, colour


@dataclass(frozen=True, slots=True)
class Picture:
    image: Image.Image
    boxes: dict[str, Box]  # visible extent in pixels of the picture, x2 and y2 exclusive
    clear: frozenset[str]  # names that are wholly in the frame, mostly unhidden and not too small


def cuboid(
    x: float, y0: float, z: float, size: tuple, yaw: float, colour: tuple, shift: tuple = (0.0, 0.0)
) -> Part:
    """An upright box; `shift` moves it along its own axes before it is turned."""
    w, h, d = size[0] / 2, size[1], size[2] / 2
    cos, sin = np.cos(yaw), np.sin(yaw)
    flat = np.array([[-w, -d], [w, -d], [w, d], [-w, d]]) + shift
    turned = np.stack([flat[:, 0] * cos + flat[:, 1] * sin, flat[:, 1] * cos - flat[:, 0] * sin], 1)
    low = np.column_stack([turned[:, 0] + x, np.full(4, y0), turned[:, 1] + z])
    vertices = np.concatenate([low, low + np.array([0, h, 0])])
    faces = [[0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7], [4, 5, 6, 7], [3, 2, 1, 0]]
    return vertices, faces, colour


def frustum(
    x: float, y0: float, z: float, r0: float, r1: float, height: float, colour: tuple, n: int = 26
) -> Part:
    """A cone, a cylinder or a lampshade."""
    angle = np.arange(n) * 2 * np.pi / n
    ring = np.column_stack([np.cos(angle), np.zeros(n), np.sin(angle)])
    vertices = np.concatenate([ring * r0 + [x, y0, z], ring * r1 + [x, y0 + height, z]])
    faces = [[i, (i + 1) % n, n + (i + 1) % n, n + i] for i in range(n)]
    if r1 > 0.02:
        faces.append(list(range(n, 2 * n)))
    return vertices, [*faces, list(range(n - 1, -1, -1))], colour


def parts(thing: Thing) -> list[Part]:
    """The meshes of one object, without its plinth; a ball is drawn apart."""
    x, z, s, y, yaw = thing.x, thing.z, thing.scale, thing.base, thing.yaw
    colour = COLOURS[thing.colour]
    if thing.kind == "box":
        return [cuboid(x, y, z, (0.68 * s, 0.62 * s, 0.68 * s), yaw, colour)]
    if thing.kind == "cone":
        return [frustum(x, y, z, 0.4 * s, 0.012, 0.98 * s, colour)]
    if thing.kind == "lamp":
        return [
            frustum(x, y, z, 0.22 * s, 0.2 * s, 0.06, METAL),
            frustum(x, y + 0.05, z, 0.045, 0.045, 0.9 * s, METAL, 8),
            frustum(x, y + 0.85 * s, z, 0.36 * s, 0.2 * s, 0.5 * s, colour),
        ]
    if thing.kind == "table":
        legs = [(i * 0.5 * s, j * 0.27 * s) for i in (-1, 1) for j in (-1, 1)]
        made = [cuboid(x, y, z, (0.09, 0.6 * s, 0.09), yaw, colour, leg) for leg in legs]
        return [*made, cuboid(x, y + 0.58 * s, z, (1.14 * s, 0.09, 0.68 * s), yaw, colour)]
    legs = [(i * 0.22 * s, j * 0.22 * s) for i in (-1, 1) for j in (-1, 1)]
    made = [cuboid(x, y, z, (0.075, 0.46 * s, 0.075), yaw, colour, leg) for leg in legs]
    made.append(cuboid(x, y + 0.45 * s, z, (0.53 * s, 0.09, 0.53 * s), yaw, colour))
    return [
        *made,
        cuboid(x, y + 0.53 * s, z, (0.53 * s, 0.55 * s, 0.08), yaw, colour, (0.0, 0.23 * s)),
    ]


def visible_faces(scene: Scene, meshes: list[Part]) -> list[tuple[np.ndarray, tuple]]:
    """Projected faces turned to the camera with their shaded colours, far meshes first."""
    camera, light = scene.camera, np.array(scene.room.light)
    eye = np.array([0.0, camera.height, 0.0])
    found = []
    for vertices, faces, colour in sorted(
        meshes, key=lambda m: -float(np.linalg.norm(m[0].mean(axis=0) - eye))
    ):
        seen = camera.view(vertices)
        if seen[:, 2].min() < 0.2:
            continue
        pixels, inside = to_pixels(seen), vertices.mean(axis=0)
        # Three corners of each face: a plane, and enough to tell which way it looks.
        corners = vertices[[[f[0], f[1], f[-1]] for f in faces]]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        inward = np.einsum("ij,ij->i", normals, corners[:, 0] - inside) < 0
        normals[inward] *= -1
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
        facing = np.einsum("ij,ij->i", normals, eye - corners[:, 0]) > 0
        strength = 0.58 + 0.46 * np.maximum(0.0, normals @ light) + 0.06 * normals[:, 1]
        shaded = np.minimum(255, strength[:, None] * np.array(colour)).astype(int).tolist()
        found += [(pixels[f], tuple(shaded[i])) for i, f in enumerate(faces) if facing[i]]
    return found


def ball_disc(scene: Scene, thing: Thing) -> tuple[float, float, float]:
    """Column, row and radius in pixels of a ball's outline."""
    radius = 0.36 * thing.scale
    seen = scene.camera.view(np.array([[thing.x, thing.base + radius, thing.z]]))
    u, v = to_pixels(seen)[0]
    return float(u), float(v), float(FOCAL * radius / np.sqrt(seen[0, 2] ** 2 - radius**2))


def paint_ball(canvas: Image.Image, scene: Scene, thing: Thing, scale: float) -> None:
    u, v, r = (value * scale for value in ball_disc(scene, thing))
    left, top, n = int(u - r) - 1, int(v - r) - 1, int(2 * r) + 4
    y, x = np.mgrid[top : top + n, left : left + n] + 0.5
    x, y = (x - u) / r, (v - y) / r
    depth = np.sqrt(np.maximum(0.0, 1.0 - x * x - y * y))
    yaw, (a, b, c) = scene.camera.yaw, scene.room.light
    right, near = a * np.cos(yaw) - c * np.sin(yaw), -(a * np.sin(yaw) + c * np.cos(yaw))
    lit = np.maximum(0.0, x * right + y * b + depth * near)
    gloss = np.maximum(0.0, x * right * 0.6 + y * b * 0.6 + depth * 0.75 - 0.05) ** 30
    rgb = np.array(COLOURS[thing.colour]) * (0.5 + 0.54 * lit)[..., None] + 120 * gloss[..., None]
    mask = (x * x + y * y <= 1.0).astype(np.uint8) * 255
    sprite = Image.fromarray(np.minimum(rgb, 255).astype(np.uint8))
    canvas.paste(sprite, (left, top), Image.fromarray(mask))


def plinth(thing: Thing) -> list[Part]:
    if not thing.base:
        return []
    yaw = thing.yaw * 0.25
    return [cuboid(thing.x, 0.0, thing.z, (0.66, thing.base, 0.66), yaw, STONE)]


def outlines(scene: Scene) -> list[tuple[int, list, list]]:
    """Far to near: an object's index, the faces of its plinth, and its own faces."""
    order = sorted(
        range(len(scene.things)), key=lambda i: -np.hypot(scene.things[i].x, scene.things[i].z)
    )
    found = []
    for i in order:
        thing = scene.things[i]
        own = [] if thing.kind == "ball" else visible_faces(scene, parts(thing))
        found.append((i, visible_faces(scene, plinth(thing)), own))
    return found


def number_canvas(scene: Scene, shapes: list, scale: float) -> np.ndarray:
    """Object numbers (1-based) seen at each pixel of a picture `scale` times the stored size."""
    side = int(SIDE * scale)
    canvas = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(canvas)
    for i, stand, own in shapes:
        for corners, _ in stand:
            pen.polygon((corners * scale).ravel().tolist(), fill=PLINTH)
        for corners, _ in own:
            pen.polygon((corners * scale).ravel().tolist(), fill=i + 1)
        if not own:
            u, v, r = (value * scale for value in ball_disc(scene, scene.things[i]))
            pen.ellipse((u - r, v - r, u + r, v + r), fill=i + 1)
    return np.asarray(canvas)


def seen_boxes(numbers: np.ndarray, scene: Scene, scale: float) -> dict[str, Box]:
    boxes = {}
    for i, thing in enumerate(scene.things):
        mask = numbers == i + 1
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            continue
        left, top, right, bottom = (
            float(edge) / scale for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        )
        boxes[thing.name] = (left, top, right, bottom)
    return boxes


def clear_names(scene: Scene, shapes: list, numbers: np.ndarray, boxes: dict) -> frozenset[str]:
    """Names a viewer cannot miss: whole in the frame, at least 60% unhidden, not too small."""
    clear, scale = set(), 0.5
    for i, _, own in shapes:
        thing = scene.things[i]
        box = boxes.get(thing.name)
        if box is None or min(box[0], box[1]) < 3 or max(box[2], box[3]) > SIDE - 3:
            continue
        width, height = box[2] - box[0], box[3] - box[1]
        if min(width, height) < 26 or max(width, height) < 36:
            continue
        alone = int((number_canvas(scene, [(i, [], own)], scale) == i + 1).sum()) / scale**2
        if int((numbers == i + 1).sum()) >= 0.6 * alone:
            clear.add(thing.name)
    return frozenset(clear)


def look(scene: Scene) -> tuple[list, dict[str, Box], frozenset[str]]:
    """What the camera sees, without the cost of a finished picture: shapes, boxes, clear names."""
    shapes = outlines(scene)
    numbers = number_canvas(scene, shapes, 1.0)
    boxes = seen_boxes(numbers, scene, 1.0)
    return shapes, boxes, clear_names(scene, shapes, numbers, boxes)


def draw(scene: Scene) -> Picture:
    """The finished picture with the visible box of each object."""
    from .rooms_backdrop import backdrop, lit  # the backdrop casts shadows of this file's meshes

    shapes, boxes, clear = look(scene)
    canvas = backdrop(scene)
    pen = ImageDraw.Draw(canvas)
    for i, stand, own in shapes:
        for corners, colour in stand + own:
            pen.polygon((corners * OVER).ravel().tolist(), fill=colour)
        if not own:
            paint_ball(canvas, scene, scene.things[i], OVER)
    return Picture(lit(canvas.reduce(OVER), scene), boxes, clear)
