# SPDX-License-Identifier: Apache-2.0
"""The main job, from a real root file system to containers that survive a kill: ``make demo``.

    python demo/run.py [--image busybox|debian|PATH.tar] [--big-size BYTES] [--keep]

Each step prints its time and is checked; the first that is not as it should be ends the demo with code 1. All that is
made lies in one temporary directory, which goes away also after a failure or Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import work
from rootfs import BadStep, busybox_layer, debian_layer, docker_archive, layer_of_files
from steps import Steps, disk_bytes, human_time, need, timed

import pycow
from pycow.cli import cmd_check, cmd_history, cmd_images, cmd_ps
from pycow.cli._describe import Known
from pycow.cli._format import human_size, table

BLOCK = 4096
HELLO = b"hello"
KILLS = 3
APP = "demo/app:1.0"
MAKERS = {"busybox": busybox_layer, "debian": debian_layer}


class Demo:
    """The story; each method is one step."""

    def __init__(self, folder: Path, image: str, big_size: int) -> None:
        self.folder = folder
        self.store_path = folder / "store"
        self.image = image
        self.big_size = big_size // BLOCK * BLOCK
        self.empty_bytes = 0  # what a new store takes on disk
        self.steps = Steps()

    def run(self) -> None:
        archive = self.make_archive()
        with pycow.open(self.store_path) as store:
            store.commit()
            self.empty_bytes = disk_bytes(self.store_path)
            base = self.load(store, archive)
            app = self.build(store, base)
            self.show_images(store, base, app)
            boxes = self.create_five(store, base, app)
            self.write_hello(store, boxes)
            self.compare_disk(store, boxes)
            self.change_big_file(store, base)
            self.fork_and_roll_back(store, app)
        self.kill_and_reopen()
        self.last_check()

    # ---- Images

    def make_archive(self) -> Path:
        with self.steps.step(f"A real root file system ({self.image})"):
            if self.image not in MAKERS:
                archive = Path(self.image)
            else:
                layer = MAKERS[self.image](self.folder)
                step = f"ADD {layer.name} / # buildkit"
                archive = docker_archive(self.folder / "image.tar", layer, f"{self.image}:latest", ["/bin/sh"], step)
                layer.unlink()
            size = disk_bytes(archive) if archive.is_dir() else archive.stat().st_size
            self.steps.say(f"{archive.name}: {human_size(size)}")
        return archive

    def load(self, store: pycow.Store, archive: Path) -> pycow.Image:
        with self.steps.step("Load it; every digest is verified"):
            image, seconds = timed(store.images.load, archive)
            names = [f"Loaded image: {tag}" for tag in image.tags] or [f"Loaded image ID: {image.id}"]
            self.steps.shell(f"pycow load -i {archive.name}", "\n".join(names))
            self.steps.cost("load", seconds, f"{human_size(image.size)} of files")
            count = len(store.images)
            again, seconds = timed(store.images.load, archive)
            self.steps.cost("load it again (its layers are known, none is read)", seconds)
            need(again.id == image.id, "the second load gives another image")
            need(len(store.images) == count, "the second load made an image")
            if not image.tags:
                image.tag("demo/base")
        return image

    def build(self, store: pycow.Store, base: pycow.Image) -> pycow.Image:
        with self.steps.step("A second image on top of it: two layers, three metadata steps"):
            script = b"#!/bin/sh\nexec cat /app/data.txt\n"
            data = b"".join(b"line %d\n" % i for i in range(20_000))
            copied = layer_of_files(
                self.folder / "copy.tar", {"app/run.sh": (script, 0o644), "app/data.txt": (data, 0o644)}
            )
            changed = layer_of_files(self.folder / "chmod.tar", {"app/run.sh": (script, 0o755)})
            environment = [*(base.inspect()["Config"].get("Env") or ()), "APP=/app"]
            steps = {
                "COPY app /app # buildkit": copied,
                "RUN /bin/sh -c chmod 755 /app/run.sh # buildkit": changed,
                "ENV APP=/app": None,
                "WORKDIR /app": None,
                'CMD ["/app/run.sh"]': None,
            }
            config = {"Env": environment, "WorkingDir": "/app", "Cmd": ["/app/run.sh"]}
            app, seconds = timed(
                store.images.build_on, base, steps.values(), APP, created_by=tuple(steps), config=config
            )
            self.steps.cost("build", seconds)
            need((app.fs / "app" / "run.sh").stat().permissions == 0o755, "the mode is not what the last layer says")
            need((app.fs / "app" / "data.txt").read_bytes() == data, "the content is not what the layer says")
        return app

    def show_images(self, store: pycow.Store, base: pycow.Image, app: pycow.Image) -> None:
        with self.steps.step("Images, their history and the layers that they share"):
            rows = [row for image in store.images.list() for row in cmd_images.image_rows(image)]
            self.steps.shell("pycow images", table(cmd_images.HEADERS, rows))
            for name, image in ((base.tags[0], base), (APP, app)):
                rows = cmd_history.history_rows(image.history())
                self.steps.shell(f"pycow history {name}", table(cmd_history.HEADERS, rows))
            for name, image in ((base.tags[0], base), (APP, app)):
                layers = image.inspect()["RootFS"]["Layers"]
                need(layers == list(image.layers), f"inspect and layers of {name} differ")
                self.steps.shell(f"pycow inspect {name}  # RootFS.Layers", "\n".join(layers))
            shared = len(base.layers)
            need(app.layers[:shared] == base.layers, "the second image does not begin with the layers of the first")
            need(len(app.layers) == shared + 2, "the second image should have two layers of its own")
            history = app.history()
            need(len(history) == len(base.history()) + 5, "the second image should have five steps of its own")
            empty = [entry for entry in history if entry.empty_layer]
            need(len(empty) >= 3 and all(entry.size == 0 for entry in empty), "metadata steps must have 0B")
            need(sum(entry.size for entry in history) == app.size, "the steps' sizes do not add up to the image's")
            self.steps.say(f"{shared} shared, 2 of its own: {human_size(app.size - base.size)} more")

    # ---- Containers

    def create_five(self, store: pycow.Store, base: pycow.Image, app: pycow.Image) -> list[pycow.Container]:
        with self.steps.step("Five containers"):
            boxes = []
            for number in range(1, 6):
                image = base if number > 3 else app
                box, seconds = timed(store.containers.create, image, name=f"c{number}")
                self.steps.cost(f"create {box.name}", seconds)
                boxes.append(box)
            self._ps(store, boxes)
            for box in boxes:
                usage = box.usage()
                need(usage.size == 0, f"{box.name} holds {usage.size} bytes before anything was written")
                need(usage.virtual_size == box.image.size, f"the virtual size of {box.name} is not its image's")
        return boxes

    def write_hello(self, store: pycow.Store, boxes: list[pycow.Container]) -> None:
        with self.steps.step("hello written into three of them"):
            for box in boxes[:3]:
                _, seconds = timed((box.fs / "hello.txt").write_bytes, HELLO)
                self.steps.cost(f"write into {box.name}", seconds)
            self._ps(store, boxes)
            for number, box in enumerate(boxes):
                expected = len(HELLO) if number < 3 else 0
                need(box.usage().size == expected, f"{box.name} should hold {expected} bytes, not {box.usage().size}")
                need((box.fs / "hello.txt").exists() == (number < 3), f"{box.name} sees what was written elsewhere")
            changes = "\n".join(str(change) for change in boxes[0].diff())
            self.steps.shell("pycow diff c1", changes)
            need(changes == "A /hello.txt", "diff should show one added file")
            _, seconds = timed(store.commit)
            self.steps.cost("commit, durable", seconds)

    def compare_disk(self, store: pycow.Store, boxes: list[pycow.Container]) -> None:
        with self.steps.step("The disk really used"):
            self._compare_disk(store, boxes)

    def _compare_disk(self, store: pycow.Store, boxes: list[pycow.Container]) -> None:
        """The whole store, images and all, beside full copies of the containers alone."""
        store.commit()
        used = disk_bytes(self.store_path)
        copies = sum(full_copy_bytes(box.fs) for box in boxes)
        self.steps.say(
            f"the store on disk: {human_size(used)}, {human_size(self.empty_bytes)} of it reserved when it was made\n"
            f"{len(boxes)} full copies would take: {human_size(copies)}"
        )
        need(used - self.empty_bytes < copies, "the store takes more than full copies would")

    def _ps(self, store: pycow.Store, boxes: list[pycow.Container]) -> None:
        known = Known(store)
        rows = [cmd_ps.container_row(box, known, box.usage()) for box in boxes]
        self.steps.shell("pycow ps -s", table((*cmd_ps.HEADERS, "SIZE"), rows))

    # ---- One block of a large file

    def change_big_file(self, store: pycow.Store, base: pycow.Image) -> None:
        with self.steps.step(f"One block of a file of {human_size(self.big_size)}"):
            maker = store.containers.create(base, name="maker")
            _, seconds = timed(self._write_big, maker)
            self.steps.cost("write the file", seconds, f"{self.big_size / seconds / 1e6:.0f} MB/s")
            image, seconds = timed(maker.commit, "demo/big:1.0", message="a large file")
            self.steps.cost("commit it as an image", seconds)
            maker.remove()
            box = store.containers.create(image, name="edit")
            store.commit()
            self._change_one_block(store, box)
            big = box.fs / "big.bin"
            with big.open("rb") as changed, (image.fs / "big.bin").open("rb") as old:
                before, after = old.pread(6 * BLOCK, 3 * BLOCK), changed.pread(6 * BLOCK, 3 * BLOCK)
            need(after == before[:BLOCK] + b"x" + before[BLOCK + 1 :], "the neighbours of the byte were not kept")
            need(box.usage().size == BLOCK, f"the container should hold one block, not {box.usage().size} bytes")
            changes = box.diff()
            self.steps.shell("pycow diff edit", "\n".join(map(str, changes)))
            need(changes == [pycow.Change("C", "/big.bin")], "diff should show one changed file")
            need(changes[0].blocks == ((7, 1),), f"diff should name block 7, not {changes[0].blocks}")
            self._ps(store, [box])
            others = [store.containers.create(image, name=f"big{number}") for number in range(1, 5)]
            self._compare_disk(store, [box, *others])
            for other in others:
                other.remove()

    def _write_big(self, box: pycow.Container) -> None:
        chunk = bytearray(random.Random(1).randbytes(1 << 20))
        with box.fs.open("/big.bin", "wb") as file:
            for number in range(0, self.big_size, len(chunk)):
                chunk[:8] = number.to_bytes(8, "little")
                file.write(memoryview(chunk)[: min(len(chunk), self.big_size - number)])

    def _change_one_block(self, store: pycow.Store, box: pycow.Container) -> None:
        before = store.stats()
        with box.fs.open("/big.bin", "r+b") as file:
            file.seek(7 * BLOCK)
            _, seconds = timed(file.write, b"x")
        _, commit_seconds = timed(store.commit)
        after = store.stats()
        copy_ups, copied = after.copy_ups - before.copy_ups, after.copy_up_bytes - before.copy_up_bytes
        written = after.bytes_written - before.bytes_written
        self.steps.cost("write one byte into block 7", seconds)
        self.steps.cost("commit, durable", commit_seconds, f"{human_size(written)} written by both")
        self.steps.say(f"copy_ups: {copy_ups}, bytes copied by them: {copied} (by file it would be {self.big_size})")
        need(copy_ups == 1, f"one block should be copied, not {copy_ups}")
        need(copied <= BLOCK, f"at most one block should be copied, not {copied} bytes")
        need(written < 1 << 20, f"{written} bytes were written for one block")

    # ---- Fork, snapshot, rollback

    def fork_and_roll_back(self, store: pycow.Store, app: pycow.Image) -> None:
        with self.steps.step("Fork, snapshot, rollback"):
            box = store.containers.get("edit")
            (box.fs / "state.txt").write_text("one")
            twin, seconds = timed(box.fork, "twin")
            self.steps.cost("fork of a container with the large file", seconds)
            need((twin.fs / "state.txt").read_text() == "one", "the twin lacks what the container had")
            (twin.fs / "state.txt").write_text("twin")
            need((box.fs / "state.txt").read_text() == "one", "a write to the twin shows in the container")
            need(twin.usage().size == box.usage().size + 1, "the twin's size is not its own")
            snapshot, seconds = timed(box.snapshot, "before")
            self.steps.cost("snapshot", seconds)
            size = box.usage().size
            (box.fs / "state.txt").write_text("spoilt")
            (box.fs / "big.bin").unlink()
            (box.fs / "etc").rmtree()
            _, seconds = timed(box.rollback, snapshot)
            self.steps.cost("rollback", seconds)
            need((box.fs / "state.txt").read_text() == "one", "the rollback did not bring the old content back")
            need((box.fs / "big.bin").stat().size == self.big_size, "the rollback did not bring the large file back")
            need((box.fs / "etc").is_dir() and box.usage().size == size, "the rollback is not complete")
            need((twin.fs / "state.txt").read_text() == "twin", "the rollback touched the twin")
            box.fs.root.joinpath("state.txt").unlink()
            twin.remove()
            worker = store.containers.create(app, name="worker")
            (worker.fs / work.TOP).mkdir()

    # ---- SIGKILL

    def kill_and_reopen(self) -> None:
        acknowledged = 0
        for kill in range(1, KILLS + 1):
            with self.steps.step(f"SIGKILL in mid-work, {kill} of {KILLS}"):
                acknowledged = self._kill_one(acknowledged, kill)

    def _kill_one(self, done: int, seed: int) -> int:
        acknowledged = run_victim(self.store_path, done + 1, rounds=8, delay=random.Random(seed).uniform(0, 0.02))
        self.steps.say(f"killed after it had acknowledged round {acknowledged}")
        store, seconds = timed(pycow.open, self.store_path, create=False)
        with store:
            self.steps.cost("open the store again", seconds)
            state = work.tree_state(store.containers.get("worker").fs)
            # One round may have become durable whose acknowledgement did not get out any more.
            found = next((n for n in (acknowledged, acknowledged + 1) if work.at_round(n).state() == state), None)
            need(found is not None, "the container is not as any acknowledged round left it")
            self.steps.say(f"all of its {len(state)} files are as round {found} left them")
            need([box.name for box in store.containers.list() if box.usage().size == len(HELLO)] != [], "hello is lost")
            report, seconds = timed(store.check, verify_data=False)
            need(report.ok, "check: " + "; ".join(report.errors[:3]))
            self.steps.cost(f"check of trees and counts ({report.nodes} nodes): clean", seconds)
        return found or acknowledged

    def last_check(self) -> None:
        with self.steps.step("Check everything, file data too"), pycow.open(self.store_path, create=False) as store:
            report, seconds = timed(store.check)
            self.steps.shell("pycow check", cmd_check.verdict(report))
            need(report.ok, "check: " + "; ".join(report.errors[:3]))
            self.steps.cost("check", seconds)


def full_copy_bytes(fs: pycow.FileSystem) -> int:
    """What a copy of all files takes on a disk with blocks of 4 KiB; hard links count once."""
    seen, total = set(), 0
    for directory, dirs, files in fs.root.walk():
        total += BLOCK * (1 + len(dirs) // 64)
        for name in files:
            attr = (directory / name).lstat()
            if attr.is_file() and attr.ino not in seen:
                seen.add(attr.ino)
                total += -(-attr.size // BLOCK) * BLOCK
    return total


def run_victim(store: Path, first: int, *, rounds: int, delay: float) -> int:
    """Runs work.py until it acknowledged so many rounds and delay seconds more, kills it, and returns the last round
    that it acknowledged."""
    command = [sys.executable, str(Path(__file__).with_name("work.py")), str(store), "worker", str(first)]
    last = first - 1
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                last = int(line)
                if last >= first + rounds - 1:
                    break
            time.sleep(delay)
        finally:
            child.kill()
        for line in child.stdout:  # what it still got out
            if line.endswith("\n"):
                last = int(line)
    need(last >= first + rounds - 1, "the worker ended by itself")
    need(child.returncode == -signal.SIGKILL, f"the worker was not killed: {child.returncode}")
    return last


@contextlib.contextmanager
def temporary_folder(keep: bool) -> Iterator[Path]:
    """Goes away at the end, whatever the end is."""
    folder = Path(tempfile.mkdtemp(prefix="pycow-demo-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"\nkept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description="The main job of pycow, step by step.")
    parser.add_argument("--image", default="busybox", help="busybox, debian, or the path of a docker save archive")
    parser.add_argument("--big-size", type=int, default=1 << 30, help="bytes of the large file (default 1 GiB)")
    parser.add_argument("--keep", action="store_true", help="leave the temporary directory")
    options = parser.parse_args()
    if options.image not in MAKERS and not Path(options.image).exists():
        parser.error(f"no such image: {options.image}")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with temporary_folder(options.keep) as folder:
            demo = Demo(folder, options.image, max(options.big_size, 16 * BLOCK))
            demo.run()
            print(f"\nAll {demo.steps.count} steps are as they should be, in {human_time(demo.steps.seconds)}.")
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    except (BadStep, pycow.Error, OSError, subprocess.CalledProcessError) as error:
        print(f"\ndemo: FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
