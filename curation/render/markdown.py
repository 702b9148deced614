"""Markdown from a template that lies beside the code: dataset cards, model cards, exports' pages.

text = render_markdown("warehouse.versions", "card.md.jinja", card=card)
"""

from __future__ import annotations

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def render_markdown(package: str, template: str, **values: Any) -> str:
    """Fill `templates/<template>` of `package`; a name that is not given is an error.

    What several packages' templates share is in `curation/render/templates/`.
    """
    pages = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("curation.render")]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # no autoescape: Markdown is no HTML
    return pages.get_template(template).render(**values)
