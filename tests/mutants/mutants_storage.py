"""Wrong versions of what a kill must leave whole: files, locks, runs."""

from __future__ import annotations

from mutant import Mutant, group

STORAGE: list[Mutant] = [
    *group(
        "storage", "storage.py", "tests/test_storage.py",
        ("    make_folder(path.parent)\n    sweep(path.parent, path.name)\n", "    make_folder(path.parent)\n"),
        ("sweep(path.parent, path.name)", "sweep(path.parent)"),
        ("            temporary.replace(path)\n", "            path.write_bytes(temporary.read_bytes())\n"),
        ("        temporary.unlink(missing_ok=True)\n", "        pass\n"),
        ("            os.fsync(handle.fileno())\n            temporary", "            temporary"),
        ("        raise\n    _flush(path.parent)", "        raise"),
        ("mkdir(exist_ok=True)\n        _flush(folder.parent)", "mkdir(exist_ok=True)"),
        ("handle.write(line)\n            handle.flush()\n            os.fsync(handle.fileno())", "handle.write(line)"),
        ("                if _hold(handle):\n    ", "                if True:\n    "),
        ("if _hold(handle):", "if _hold(handle) is not False:"),
        ("return known and entry.is_file(follow_symlinks=False)", "return known"),
        (" or (not name and entry.name == LOCK)", ""),
        ("(not name and entry.name == LOCK)", "entry.name == LOCK"),
        ("                path.unlink()\n\n\ndef _lock", "                pass\n\n\ndef _lock"),
        ("wait=busy is None) is False:", "wait=busy is None) is None:"),
        ("        if _is_there(handle, path):\n            break", "        if True:\n            break"),
        ("if _is_there(handle, temporary):", "if True:"),
        ("        _hold(handle, wait=True)\n", ""),
        ("        check_replaceable(path)  # what a link leads to is not written over\n", ""),
        ("if host == platform.node() else", "if True else"),
        ("if not pid.isdigit():", "if False:"),
        ("    except OSError:\n        return None", "    except OSError:\n        return True"),
        ('temporary.open("xb")', 'temporary.open("xb", opener=lambda p, f: os.open(p, f, 0o600))'),
    ),
    *group(
        "storage", "runs.py", "tests/test_runs.py",
        ('if run._known != plain or not hashed.items() <= run.info.get("hashes", {}).items():', "if True:"),
        ("            with run.editing() as info:\n                run._settle(plain, complete)\n",
         "            run._settle(plain, complete)\n            with run.editing() as info:\n"),
        ("and not _is_ours(reading.content(path, links=False))", "and False"),
        ("if self.info and self._recipe_file.exists() else None", "if self._recipe_file.exists() else None"),
        ("    except (HauberkError, UnicodeDecodeError):\n        return False",
         "    except (HauberkError, UnicodeDecodeError):\n        return True"),
        ("        run.sweep()\n        return run\n\n    @staticmethod\n    def prepare",
         "        return run\n\n    @staticmethod\n    def prepare"),
        ("        with self._alone():\n            info, before", "        if True:\n            info, before"),
        ('return "predictor" in self.info and self._config_file.exists()', "return self._config_file.exists()"),
        ("        if not self.has_model:\n", "        if not self._config_file.exists():\n"),
        ("            if not isinstance(row, dict):\n                break\n", ""),
        ('.decode(errors="replace").splitlines()', ".decode().splitlines()"),
    ),
    *group(
        "storage", "evaluation/signing.py",
        "tests/test_runs.py::test_shards_that_sign_at_the_same_time_lose_no_line_of_the_list",
        ("    with run.editing() as info:  # shards", "    info = run.info\n    if True:  # shards"),
        ('{p.name: reading.sha256(p) for p in sorted(run.records.glob("*.parquet"))}',
         'info.get("hashes", {}).get("records", {})'),
    ),
    *group(
        "storage", "data/files.py", "tests/data/test_files.py tests/test_every_kill.py::test_download",
        ("            replacing(path) as handle,", "            path.open('wb') as handle,"),
        ("            check_md5(path, digest.hexdigest(), md5)\n    except", "    except"),
    ),
    *group(
        "storage", "cli/__init__.py", "tests/cli/test_interrupts.py",
        ("    with ending_at_once():\n        from contextvars", "    if True:\n        from contextvars"),
        ("    except KeyboardInterrupt:\n        code = INTERRUPTED\n", ""),
    ),
    *group(
        "storage", "cli/interrupts.py", "tests/cli/test_interrupts.py",
        ("ours = threading.current_thread() is threading.main_thread()", "ours = True"),
        ("signal.getsignal(signal.SIGINT) is signal.default_int_handler", "True"),
        ("        signal.signal(signal.SIGINT, signal.default_int_handler)", "        pass"),
        ("    os._exit(INTERRUPTED)", "    raise SystemExit(INTERRUPTED)"),
    ),
    *group(
        "storage", "training/loop.py",
        "tests/training/test_loop.py::test_a_second_training_in_the_same_folder_is_refused",
        ("run.training() if processes.rank == 0 else nullcontext()", "nullcontext()"),
    ),
    *group(
        "storage", "runs.py", "tests/test_every_kill.py::test_train",
        ('"predictor" in self.info and self._config_file.exists()', "self._config_file.exists()"),
        ("return self.recipe if self.info and self", "return self.recipe if self"),
    ),
    *group(
        "storage", "storage.py", "tests/test_every_kill.py::test_certify",
        ("        found = [e.path", "        return\n        found = [e.path"),
    ),
]  # fmt: skip
