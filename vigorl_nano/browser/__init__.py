"""Pages in a headless browser: they give samples of screenshots, and episodes are played on them.

    with chrome.started(1280, 800) as driver: ...        # Debian's Chromium; the extra `web`

`screens` makes web-grounding's sample from any pages, `episodes` plays MiniWoB++, and `steps` makes
web-action's sample of it. Nothing else needs a browser: the samples are committed.
"""
