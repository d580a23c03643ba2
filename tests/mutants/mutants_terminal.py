"""Mutants of the terminal: who draws, what fits, and what is said before and inside a unit."""

from __future__ import annotations

from mutant import Mutant, group

HERE = "tests/cli/test_terminal.py::"
PLAIN = f"{HERE}test_plain_lines_where_no_line_can_be_taken_back"
ONE = f"{HERE}test_training_is_one_bar_on_a_terminal_of_any_width"
INSIDE = f"{HERE}test_word_comes_from_inside_a_unit_and_what_it_takes_at_most_before"

TERMINAL = [
    Mutant("terminal", "cli/lastline.py", "not obeys() or not _in_foreground()", "not obeys()", f"{PLAIN}[background]"),
    Mutant("terminal", "cli/lastline.py", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH", f"{PLAIN}[another]"),
    Mutant("terminal", "cli/lastline.py", 'os.environ.get("NO_COLOR") or ', "", f"{PLAIN}[NO_COLOR]"),
    Mutant("terminal", "cli/bar.py", "room = columns - 1", "room = columns", ONE),
    Mutant("terminal", "cli/console.py", "    LAST.clear()\n    stream", "    stream",
           f"{HERE}test_lines_and_errors_do_not_run_into_the_bar"),
    Mutant("terminal", "attacks/query.py",
           "        beat(_length(rows) * self.eot * (1 + len(gradients)))\n", "", INSIDE),
    Mutant("terminal", "verbs/attack.py",
           "    foretell(target.model, samples, attacks, plan.tile, len(setting.classes), shard, report)\n", "",
           INSIDE),
    Mutant("terminal", "pulse.py", "    os.register_at_fork(after_in_child=_watching.clear)", "    pass",
           f"{HERE}test_a_forked_worker_says_nothing_of_its_drivers_work"),
    Mutant("terminal", "cli/console.py", "return min(FIRST_SECONDS, PLAIN_SECONDS)", "return PLAIN_SECONDS",
           f"{HERE}test_the_first_plain_line_does_not_wait_for_ten_seconds"),
    *group(
        "formulas", "cli/formulas.py", "tests/cli/test_formulas.py",
        ("return text if re.fullmatch(", "return text if True or re.fullmatch("),
        ("if all(c in known for c in text):", "if False:"),
        ("FUNCTION.sub(\" \", RELATION.sub(r\" \\1 \", found))", "RELATION.sub(r\" \\1 \", found)"),
        ('.replace("⦃", "{")', ""),
        ("DISPLAYED.sub(lambda found", "re.compile('$^').sub(lambda found"),
    ),
]  # fmt: skip
