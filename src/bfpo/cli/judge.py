"""``bfpo judge``: fit a judge, check any judge against labels, and correct rates for its errors."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track
from rich.table import Table
from rich.text import Text

from bfpo.cli.data import Rename, renaming
from bfpo.cli.printing import Console, echo, print_spending, print_work, wide_console
from bfpo.errors import BfpoError, did_you_mean
from bfpo.files import check_not_overwritten, check_suffix

if TYPE_CHECKING:
    from bfpo.judges.checking import JudgeReport, Slice
    from bfpo.judges.fitted import Target
    from bfpo.judges.labels import LabeledAnswer
    from bfpo.judges.verdict import Exchange, Judge, Verdict
    from bfpo.statistics.agreement import Agreement
    from bfpo.statistics.calibration import CalibrationError
    from bfpo.statistics.intervals import Estimate

app = typer.Typer(no_args_is_help=True, help="Fit judges and check them against labels.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TargetOption = Annotated[str, typer.Option(help="What the judge decides: safety or refusal.")]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="File of cached verdicts; by default verdicts.sqlite in $BFPO_CACHE or ~/.cache/bfpo."),
]
# Heading of calibration errors, whose second number is in parentheses.
_ECE = "ECE (by chance)"
LABELS_HELP = (
    "File of labeled answers, with columns prompt, answer, and is_safe or is_refusal; or a preference set, "
    "which may be labeled in part."
)


@app.command("list")
def list_judges(as_json: AsJson = False) -> None:
    """List the available judges and how to name each."""
    from bfpo.judges.registry import KINDS

    kinds = [KINDS[name] for name in sorted(KINDS)]
    if as_json:
        rows = [{"name": kind.name, "argument": kind.argument, "summary": kind.summary} for kind in kinds]
        echo(json.dumps(rows, indent=2))
        return
    table = Table("judge", "argument", "description", box=None, pad_edge=False)
    for kind in kinds:
        table.add_row(Text(kind.name), Text(kind.argument), Text(kind.summary))
    Console().print(table)
    echo(
        "Name a judge as JUDGE:ARGUMENT, or JUDGE alone if it needs no argument. Without JUDGE, a folder means a "
        "fitted judge,\na YAML file a configured one, and a JSONL, JSON, CSV or Parquet file stored verdicts."
    )


@app.command()
def fit(
    labels: Annotated[str, typer.Argument(help=LABELS_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the judge.")],
    target: TargetOption = "safety",
    source: Annotated[str | None, typer.Option(help="Use only answers from this source.")] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of cross-validation folds, split by prompt.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the folds.")] = 0,
    column: Rename = None,
    as_json: AsJson = False,
) -> None:
    """Fit a small classifier to labeled answers (no GPU) and report how well it does on held-out prompts."""
    from bfpo.judges.fitting import fit_judge
    from bfpo.judges.labels import load_labels, of_source

    chosen = _target(target)
    labeled = load_labels(labels, renaming(column))
    if source is not None:
        labeled = of_source(labeled, source)
    if asked := sum(answer.from_queue and answer.label(chosen) is not None for answer in labeled):
        echo(
            f"warning: {asked:,} of these labels answer the queue, which asks for what is hardest; figures that "
            "include them are not those of all answers (measure the judge with 'bfpo label', on the random part)",
            err=True,
        )
    made = fit_judge(labeled, chosen, name=output.resolve().name, folds=folds, seed=seed)
    judge, record = made.judge, dict(made.judge.record)
    judge.save(output)
    if made.report.overall.auc is None or made.report.overall.auc.value <= 0.5:
        echo("warning: out of fold this judge is no better than chance", err=True)
    if as_json:
        echo(json.dumps({"judge_id": judge.judge_id, "scaling": asdict(judge.scaling), **record}, indent=2))
        return
    _print_report(made.report, f"out of fold ({folds} folds by prompt)")
    echo(f"Wrote {judge.judge_id} to {output}; skipped {judge.record['left_out']} rows without label or answer.")


@app.command()
def check(
    labels: Annotated[str, typer.Option("--labels", help=LABELS_HELP)],
    judge: Annotated[str | None, typer.Argument(help="Judge, named as in 'bfpo judge list'.")] = None,
    target: TargetOption = "safety",
    leave_one_source_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-source-out",
            help="Instead of checking a judge, fit one to each source of the labels (and one to all the others) and "
            "check it on the rest: bfpo judge check --leave-one-source-out --labels all.jsonl.",
        ),
    ] = False,
    second: Annotated[str | None, typer.Option(help="Second judge; also print how far the two agree.")] = None,
    column: Rename = None,
    cache: CacheOption = None,
    plot: Annotated[Path | None, typer.Option(help="PNG file for the reliability diagram.")] = None,
    save_verdicts: Annotated[
        Path | None, typer.Option(help="File to save the verdicts to; it can be named as a judge later.")
    ] = None,
    save_scaled: Annotated[
        Path | None, typer.Option(help="YAML file for the judge with Platt scaling, fitted to these labels.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the calibration error by chance.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check a judge against labels: accuracy, error rates, AUC, ECE and kappa, also by category and length."""
    if leave_one_source_out:
        if judge or second or cache or plot or save_verdicts or save_scaled:
            raise BfpoError(
                "--leave-one-source-out fits its own judges: give only --labels, --target, --column, --seed and --json"
            )
        _transfer(labels, _target(target), column, seed, as_json)
        return
    if judge is None:
        raise BfpoError("name the judge to check: bfpo judge check JUDGE --labels FILE")
    files = CheckFiles(plot, save_verdicts, save_scaled)
    read = [
        (labels, "the labels"),
        (judge, "the judge's file"),
        (second, "the second judge's file"),
        (cache, "the cache"),
    ]
    for path in filter(None, (plot, save_verdicts, save_scaled)):
        check_not_overwritten(path, read)
    _check(judge, labels, _target(target), second, column, cache, files, seed, as_json)


@dataclass(frozen=True)
class CheckFiles:
    """Files that a check writes, besides its report; names that promise another format are refused."""

    plot: Path | None
    verdicts: Path | None
    scaled: Path | None

    def __post_init__(self) -> None:
        for path, suffix in ((self.plot, ".png"), (self.verdicts, ".jsonl"), (self.scaled, ".yaml")):
            if path:
                check_suffix(path, suffix)

    def write(
        self, report: JudgeReport, judge: str, labels: str, labeled: list[LabeledAnswer], given: list[Verdict]
    ) -> None:
        """Write the verdicts, the judge with Platt scaling, and the diagram, as far as they have names."""
        if self.verdicts:
            from bfpo.judges.replay import save_verdicts

            save_verdicts(self.verdicts, zip((answer.exchange for answer in labeled), given, strict=True))
        if self.scaled:
            from bfpo.judges.scaling import save_scaled_judge

            save_scaled_judge(self.scaled, judge, labels, labeled, given)
        if self.plot:
            from bfpo.judges.diagram import reliability_diagram

            if not report.reliability:
                raise BfpoError(
                    "--plot: the judge gives no probabilities for this target, so there is no diagram to draw"
                )
            reliability_diagram(report.reliability, self.plot, title=report.judge_id)


def _check(
    judge: str, labels: str, chosen: Target, second: str | None, column: list[str] | None, cache: Path | None,
    files: CheckFiles, seed: int, as_json: bool,
) -> None:  # fmt: skip
    from bfpo.judges import load_judge
    from bfpo.judges.checking import agreement_of, check_judge, probabilities_of
    from bfpo.judges.in_sample import warnings_of
    from bfpo.judges.labels import load_labels
    from bfpo.judges.verdict import counts_of

    loadable = load_labels(labels, renaming(column))
    every = [answer for answer in loadable if answer.label(chosen) is not None]
    labeled, from_queue = _without_queue(every)
    exchanges = [answer.exchange for answer in labeled]
    loaded = load_judge(judge)
    other = load_judge(second) if second else None
    given = _judged(loaded, exchanges, cache)
    known = probabilities_of(loaded, exchanges, chosen)
    report = check_judge(labeled, given, chosen, probabilities=known, seed=seed)
    agreement = None
    if other is not None:
        prompts = [exchange.prompt for exchange in exchanges]
        agreement = agreement_of(prompts, given, _judged(other, exchanges, cache), chosen)
    print_spending(loaded, other)
    counts = dict(counts_of(loaded))
    cautions = _warned(warnings_of(loaded, exchanges, labels))
    unlabeled = len(loadable) - len(every)
    if as_json:
        shown = asdict(report) | {"counts": counts, "agreement": agreement and asdict(replace(agreement, table={}))}
        echo(json.dumps(shown | {"warnings": cautions, "unlabeled": unlabeled, "from_queue": from_queue}, indent=2))
    else:
        _print_report(report, report.judge_id)
        if unlabeled:
            echo(f"left out: {unlabeled:,} answers without a label of {chosen} by people")
        _print_extras(report, counts, agreement, second)
    # A file that can't be written doesn't cost the report.
    files.write(report, judge, labels, labeled, given)


@app.command()
def rate(
    judge: Annotated[str, typer.Argument(help="Judge, named as in 'bfpo judge list'.")],
    answers: Annotated[
        str, typer.Option("--answers", help="Unlabeled answers: a file with columns prompt and answer.")
    ],
    labels: Annotated[str, typer.Option("--labels", help="File of labeled answers that show the judge's error.")],
    column: Rename = None,
    cache: CacheOption = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the share of unsafe answers, corrected for the judge's error (Rogan and Gladen)."""
    from bfpo.judges import load_judge
    from bfpo.judges.checking import error_of, share_unsafe
    from bfpo.judges.in_sample import warnings_of
    from bfpo.judges.labels import load_answers, load_labels

    labeled, from_queue = _without_queue(
        [answer for answer in load_labels(labels, renaming(column)) if answer.is_safe is not None]
    )
    exchanges = load_answers(answers, renaming(column))
    loaded = load_judge(judge)
    own = [answer.exchange for answer in labeled]
    _warned(warnings_of(loaded, own))
    error = error_of(labeled, _judged(loaded, own, cache))
    share = share_unsafe(exchanges, _judged(loaded, exchanges, cache), error)
    print_work(loaded)
    if as_json:
        shown = asdict(share) | {"error": asdict(error), "judge_id": loaded.judge_id, "from_queue": from_queue}
        echo(json.dumps(shown, indent=2))
        return
    echo(f"judged {share.judged:,} of {share.answers:,} answers (unparsed: {share.answers - share.judged:,})")
    echo(f"called unsafe         {_shown(share.observed)}")
    echo(f"unsafe, corrected     {_shown(share.corrected)}")
    echo(f"judge's sensitivity   {_shown(error.sensitivity)}")
    echo(f"judge's specificity   {_shown(error.specificity)}")


def _transfer(labels: str, target: Target, column: list[str] | None, seed: int, as_json: bool) -> None:
    from bfpo.judges.labels import load_labels
    from bfpo.judges.transfer import transfer_table

    table = transfer_table(_without_queue(load_labels(labels, renaming(column)))[0], target, seed=seed)
    if as_json:
        echo(json.dumps([asdict(transfer) for transfer in table], indent=2))
        return
    names = ("fitted to", "checked on", "answers", "AUC", "accuracy", "base rate", _ECE)
    shown = Table(*names, box=None, pad_edge=False)
    for transfer in table:
        part = transfer.figures
        figures = (*map(_shown, (part.auc, part.accuracy, transfer.base_rate)), _shown_error(part.ece))
        texts = (transfer.fitted_to, transfer.checked_on, f"{part.answers:,}", *figures)
        shown.add_row(*map(Text, texts))
    wide_console().print(shown)
    echo(
        "A source against itself is out of fold. Base rate: accuracy of always giving the commoner label.\n"
        "Thresholds and calibration don't transfer between sources, and ranking (AUC) only sometimes."
    )


def _target(target: str) -> Target:
    from bfpo.judges.fitted import TARGETS

    if target not in TARGETS:
        raise BfpoError(f"--target {target}{did_you_mean(target, TARGETS)}: choose {' or '.join(TARGETS)}")
    return target


def _without_queue(labeled: list[LabeledAnswer]) -> tuple[list[LabeledAnswer], int]:
    """The labels that a judge can be measured on, and the number of the others, which is shown."""
    from bfpo.judges.labels import representative

    left = representative(labeled)
    asked = len(labeled) - len(left)
    if asked:
        echo(f"left out: {asked:,} answers that the queue asked people about, as the hardest for a judge", err=True)
    return left, asked


def _warned(cautions: list[str]) -> list[str]:
    for caution in cautions:
        echo(f"warning: {caution}", err=True)
    return cautions


def _judged(judge: Judge, exchanges: list[Exchange], cache: Path | None) -> list[Verdict]:
    """Verdicts, with a progress bar and a cache."""
    from bfpo.judges import verdicts
    from bfpo.judges.cache import VerdictCache, default_cache_file

    console = Console(stderr=True)
    hidden = not console.is_terminal
    with VerdictCache(cache or default_cache_file()) as kept:
        given = verdicts(judge, exchanges, kept)
        return list(track(given, "judging", total=len(exchanges), console=console, transient=True, disable=hidden))


def _print_report(report: JudgeReport, title: str) -> None:
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for name in ("", "answers", "unparsed", "accuracy", "sensitivity", "specificity", "AUC", _ECE, "kappa"):
        table.add_column(name)
    slices: list[tuple[str, Slice]] = [("all", report.overall)]
    slices += [(name or "no source", part) for name, part in report.by_source.items()]
    slices += [(f"{name} (category)" if name else "no category", part) for name, part in report.by_category.items()]
    slices += [(f"{name} characters", part) for name, part in report.by_length.items()]
    for name, part in slices:
        rates = map(_shown, (part.accuracy, part.sensitivity, part.specificity, part.auc))
        unparsed = str(sum(part.unparsed.values()))
        figures = (*rates, _shown_error(part.ece), _shown(part.kappa))
        table.add_row(Text(name), f"{part.answers:,}", unparsed, *figures)
    wide_console().print(table)
    for reason, count in report.overall.unparsed.items():
        echo(f"unparsed: {count:,} ({reason})")


def _print_extras(report: JudgeReport, counts: dict[str, int], agreement: Agreement | None, second: str | None) -> None:
    if report.overall.controversial:
        echo(f"controversial, counted as unsafe: {report.overall.controversial:,}")
    if report.little_mass:
        echo(f"verdicts with less than .9 of the probability on valid words: {report.little_mass:,}")
    for name, count in counts.items():
        echo(f"{name}: {count:,} in this run")
    if agreement is not None:
        shared = f"{_shown(agreement.observed)}, kappa {_shown(agreement.kappa)}"
        echo(f"agreement with {second} on {agreement.observed.n:,} answers: {shared}")


def _shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _shown_error(error: CalibrationError | None) -> str:
    return "-" if error is None else f"{error.value:.3f} ({error.by_chance:.3f})"
