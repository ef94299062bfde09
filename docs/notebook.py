"""Links between pages in the notebook, which its converter leaves as they are: they are those of a code host."""

import re
from typing import Any

from mkdocs.exceptions import PluginError

LINK = re.compile(r'href="((?!https?:)[^"#]+)\.md(#[^"]*)?"')


def on_page_content(content: str, page: Any, files: Any, **_: object) -> str:
    """Let the links of a notebook lead to the pages of the site; one that leads nowhere ends the build."""
    if not page.file.src_path.endswith(".ipynb"):
        return content

    def of_site(link: re.Match[str]) -> str:
        name, anchor = link.groups(default="")
        if files.get_file_from_path(f"{name}.md") is None:
            raise PluginError(f"{page.file.src_path}: links to {name}.md, which does not exist")
        return f'href="{name}.html{anchor}"'

    return LINK.sub(of_site, content)
