"""The table of detectors: python scripts/detectors.py source=street.mp4.

For each of torchvision's: parameters, the average precision on COCO that torchvision publishes, and how many times the
frames a second of the plain loop this project makes of it, here.
"""

import hydra
from benchmark import EAGER, OURS, beside
from omegaconf import DictConfig
from refuse import refusing
from torchvision.models import get_model_weights

from track.detector import OWN, names


@hydra.main(version_base=None, config_path="../conf", config_name="benchmark")
@refusing
def main(cfg: DictConfig) -> None:
    """Print a row of Markdown for each."""
    print("| `detector.name=` | parameters | COCO mAP | plain loop, ms a frame | here, ms | times as fast |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in names():
        if name in OWN:
            continue
        cfg.detector.name = name
        published = get_model_weights(name).DEFAULT.meta["_metrics"]["COCO-val2017"]["box_map"]
        both = beside(cfg)
        plain, here = both.costs[EAGER], both.costs[OURS]
        millions = f"{both.parameters / 1e6:.1f} M"
        print(f"| {name} | {millions} | {published} | {plain:.0f} | {here:.0f} | {plain / here:.2f} |", flush=True)


if __name__ == "__main__":
    main()
