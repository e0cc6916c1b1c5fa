"""The evaluator of docs/plugins.md, word for word, passes the contract that the page names."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()
namespace = {"__name__": "similarity"}
for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
    exec(block, namespace)
TestSimilarity = namespace["TestSimilarity"]
