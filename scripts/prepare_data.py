"""Fetch a public data set and lay it out: prepare_data.py dataset=mot17|mot20|dancetrack|sportsmot|pennfudan."""

import shutil
from pathlib import Path

import hydra
from omegaconf import DictConfig
from refuse import refusing
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from track.fetch import Archive, download, hub_archives, lay_out, unpack


@hydra.main(version_base=None, config_path="../conf", config_name="prepare_data")
@refusing
def main(cfg: DictConfig) -> None:
    """Make ROOT/<data set>; what was fetched before is not fetched again."""
    print(f"data: {prepare(cfg)}")


def prepare(cfg: DictConfig) -> Path:
    """Download, unpack and lay out one data set beside its final place, then move it there; returns the folder."""
    home = Path(str(cfg.root)) / cfg.dataset.name
    print(f"{cfg.dataset.name}: {cfg.dataset.page}, licence: {cfg.dataset.licence}")
    if home.exists():
        return home
    work = home.with_name(f".{cfg.dataset.name}.part")
    hub = cfg.dataset.get("hub")
    archives = hub_archives(hub, cfg.names) if hub else [Archive(url) for url in cfg.dataset.archives]
    for archive in archives:
        done = work / f"{archive.name}.done"
        if done.is_file():
            continue
        file = fetch(archive, work)
        shutil.rmtree(work / "unpacked", ignore_errors=True)
        try:
            unpack(file, work / "unpacked")
        except ValueError:
            file.unlink()  # damaged: the next run fetches it anew
            raise
        if not lay_out(work / "unpacked", work / "ready"):
            raise ValueError(f"{archive.url}: expected sequences (seqinfo.ini) or Penn-Fudan's Annotation in it")
        done.touch()
        file.unlink()
    (work / "ready").rename(home)
    shutil.rmtree(work)
    return home


def fetch(archive: Archive, folder: Path) -> Path:
    """Download with a progress bar."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task(archive.name, total=archive.size)
        return download(archive, folder, lambda done, total: progress.update(bar, completed=done, total=total or None))


if __name__ == "__main__":
    main()
