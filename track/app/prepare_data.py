"""grutrack prepare-data: download a public data set and lay it out as MOTChallenge folders."""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from track.app.console.cli import command
from track.datasets.download import (
    Archive,
    DataSet,
    checksum,
    dataset_named,
    download,
    hub_archives,
    lay_out,
    unpack,
)


@command("prepare_data")
def main(cfg: DictConfig) -> None:
    """Make ROOT/<data set>; what was downloaded before is not downloaded again."""
    print(f"data: {prepare(dataset_named(cfg.dataset), Path(str(cfg.root)), cfg.names, cfg.sha256)}")


def prepare(dataset: DataSet, root: Path, names: str = "", sha256: str | None = None) -> Path:
    """Download, unpack and lay out a data set beside its final place, then move it there; returns the folder.

    names: regular expression of the archives to take, where there are several. sha256: the expected checksum of the
    only archive of a data set whose server publishes none. Checksums that are not known are printed.
    """
    home = root / dataset.name
    print(f"{dataset.name}: {dataset.page}, licence: {dataset.licence}")
    work = home.with_name(f".{dataset.name}.part")
    if home.exists():
        shutil.rmtree(work, ignore_errors=True)  # left by a kill
        return home
    if sha256 is not None and len(dataset.archives) != 1:
        raise ValueError(f"sha256: expected none for {dataset.name}, whose server publishes the checksums")
    urls = [Archive(url, sha256=sha256) for url in dataset.archives]
    archives = hub_archives(dataset.hub, names) if dataset.hub else urls
    for archive in archives:
        done = work / f"{archive.name}.done"
        if done.is_file():
            continue
        file = fetch(archive, work)
        if archive.sha256 is None:
            print(f"{archive.name}: sha256={checksum(file)}")
        shutil.rmtree(work / "unpacked", ignore_errors=True)
        try:
            unpack(file, work / "unpacked")
        except ValueError:
            file.unlink()  # damaged: the next run downloads it again
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
