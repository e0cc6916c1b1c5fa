"""For mkdocs: files of the repository that pages link to are copied into the site.

A link such as `../plugins/mmq_plugins/targets/torch_checkpoint.py` works in the repository; in the
site it becomes `source/plugins/...`, a copy.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"\]\((?:\.\./)+([^)#]+)\)")
ROOT = Path(__file__).parents[1]


def copy_name(path: str) -> str:
    """Where the site has the copy; as text, so that browsers show it."""
    return f"source/{path}.txt"


def on_files(files: Files, config: Any) -> Files:
    """Add a copy of every file outside of docs/ that a page links to."""
    for page in list(files.documentation_pages()):
        for path in LINK.findall(page.content_string):
            name = copy_name(path)
            if (ROOT / path).is_file() and files.get_file_from_path(name) is None:
                text = (ROOT / path).read_text()
                files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point such links to the copies."""
    up = "../" * page.file.src_uri.count("/")
    return LINK.sub(lambda match: f"]({up}{copy_name(match[1])})", markdown)
