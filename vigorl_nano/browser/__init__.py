"""Real pages in a real browser: where samples of screenshots come from, and episodes are played.

    with chrome.started(1280, 800) as driver: ...        # Debian's Chromium; the extra `web`

`screens` makes web-grounding's sample from any pages, `episodes` plays MiniWoB++, and `steps` makes
web-action's sample of it. Nothing else needs a browser: what they make is committed.
"""
