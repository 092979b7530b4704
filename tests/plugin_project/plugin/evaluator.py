import itertools
from collections import OrderedDict

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm


class CountEvaluator(DatasetEvaluator):
    def __init__(self, dataset_name, distributed=True):
        self._dataset_name = dataset_name
        self._distributed = distributed

    def reset(self):
        self._counts = []

    def process(self, inputs, outputs):
        for sample, output in zip(inputs, outputs):
            instances = output["instances"].to("cpu")
            assert instances.image_size == (sample["height"], sample["width"])
            self._counts.append(
                {"image_id": sample["image_id"], "num": len(instances), "tags": instances.tag.tolist()}
            )

    def evaluate(self):
        counts = self._counts
        if self._distributed:
            comm.synchronize()
            counts = list(itertools.chain(*comm.gather(counts, dst=0)))
            if not comm.is_main_process():
                return {}
        tags = {tag for entry in counts for tag in entry["tags"]}
        assert tags <= {7}
        return OrderedDict(counts={"images": len(counts), "boxes": sum(entry["num"] for entry in counts)})
