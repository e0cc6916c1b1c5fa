"""Every bundled data set passes the contract suite, in every layout that it reads."""

import json
import re
from pathlib import Path

import official_files as official
from mmq_plugins.datasets.coco_captions import CocoCaptions
from mmq_plugins.datasets.coco_karpathy import CocoKarpathy
from mmq_plugins.datasets.flickr30k import Flickr30k
from mmq_plugins.datasets.gqa import Gqa
from mmq_plugins.datasets.scenes import Scenes
from mmq_plugins.datasets.vqav2 import VqaV2

from mmq.testing import DatasetContract

DOCS = Path(__file__).parents[2] / "docs" / "data.md"


class TestCocoCaptions(DatasetContract):
    def make(self):
        return CocoCaptions()

    def root(self, tmp_path):
        return official.coco_captions(tmp_path)


class TestCocoKarpathy(DatasetContract):
    def make(self):
        return CocoKarpathy()

    def root(self, tmp_path):
        return official.karpathy_coco(tmp_path)


class TestLavisCoco(TestCocoKarpathy):
    def root(self, tmp_path):
        return official.lavis_coco(tmp_path)


class TestFlickr30k(DatasetContract):
    def make(self):
        return Flickr30k()

    def root(self, tmp_path):
        return official.karpathy_flickr(tmp_path)


class TestLavisFlickr(TestFlickr30k):
    def root(self, tmp_path):
        return official.lavis_flickr(tmp_path)


class TestTokenFlickr(TestFlickr30k):
    def root(self, tmp_path):
        return official.token_flickr(tmp_path)


class TestGqa(DatasetContract):
    def make(self):
        return Gqa()

    def root(self, tmp_path):
        return official.gqa(tmp_path)


class TestVqaV2(DatasetContract):
    def make(self):
        return VqaV2()

    def root(self, tmp_path):
        return official.vqav2(tmp_path)


class TestScenes(DatasetContract):
    def make(self):
        return Scenes("gqa")

    def root(self, tmp_path):
        return tmp_path


class TestTheExampleInTheDocs(DatasetContract):
    """The third-party data set of docs/data.md."""

    def make(self):
        names = {}
        exec(re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[1], names)
        return names["Shelves"]()

    def root(self, tmp_path):
        rows = []
        for k in range(4):
            official.picture(tmp_path / "images" / f"{k // 2}.jpg", k // 2)
            rows.append({"image": f"{k // 2}.jpg", "question": f"how many {k}?", "answers": ["2"]})
        (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return tmp_path
