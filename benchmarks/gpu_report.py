"""Report of the benchmark on a GPU: one question a section, its answer in a sentence, and the table behind it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import OURS, Result, rows_per_second, tokens_per_second
from gpu_plan import planned_mb
from side import case_of

SIDE = {"ours": "bfpo", "compact": "TRL at its best", "shipped": "TRL as shipped"}
MODEL = {"": "Llama, 28M", "smollm2-135m": "SmolLM2's shape, 135M", "qwen2.5-1.5b": "Qwen2.5's shape, 1.5B"}
MODEL["llama-2-7b"] = "Llama 2's shape, 6.7B"
TRAINED = {"all": "all weights", "lora": "LoRA", "qlora": "QLoRA"}


def is_grouped(run: Result) -> bool:
    """Whether the batches of a run have pairs of about one length, as those of TRL at its best must have."""
    return bool(run["case"]["workload"].get("batches"))


def side_of(run: Result) -> str:
    """The side in words."""
    if run["case"]["side"] == "compact" and not is_grouped(run):
        return "TRL at its best, but for random batches"
    return SIDE[run["case"]["side"]]


def share_of_peak(result: Result, peak: float | None) -> float:
    """Unavoidable FLOPs as a share of the card's matmul peak, or else of that of the run's own process."""
    layout = "shared" if result["case"]["side"] in OURS else "packed"
    return rows_per_second(result) * result["flops_needed_a_row"][layout] / (peak or result["matmul_peak"])


def training_runs(results: dict[str, Result]) -> dict[tuple[str, str, str], Result]:
    """Runs that were measured, by model, trained weights and side."""
    runs = [result for result in results.values() if result["kind"] == "speed" and "losses" in result]
    return {(run["case"]["workload"]["model"], run["case"]["trained"], run["case"]["side"]): run for run in runs}


def speedups(results: dict[str, Result]) -> dict[tuple[str, str, str], float]:
    """How many times the tokens of each of TRL's runs bfpo trains on in the same time."""
    runs = training_runs(results)
    return {
        (model, trained, side): tokens_per_second(own) / tokens_per_second(run)
        for (model, trained, side), run in runs.items()
        if side != "ours" and (own := runs.get((model, trained, "ours")))
    }


def speeds(results: dict[str, Result], peak: float | None) -> list[str]:
    """Training runs of all sides."""
    by_case = training_runs(results)
    if not by_case:
        return []
    lines = [
        "| model | trained | side | pairs/s | tokens/s | seconds a step | speedup of bfpo | peak memory, GB "
        "| planned, GB | weights, GB | share of the matmul peak | preparation, s | first step, s | in memory at once |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (model, trained, side), run in by_case.items():
        planned = planned_mb(case_of(run["case"])) if side in OURS else None
        own = by_case.get((model, trained, "ours"))
        factor = "" if own is None else f"{tokens_per_second(own) / tokens_per_second(run):.2f}x"
        lines.append(
            f"| {MODEL[model]} | {TRAINED[trained]} | {side_of(run)} | {rows_per_second(run):.1f} "
            f"| {tokens_per_second(run):,.0f} | {statistics.mean(run['step_seconds']):.3f} | {factor} "
            f"| {_gb(run['device_mb'])} | {_gb(planned)} | {_gb(run['weights_mb'])} "
            f"| {100 * share_of_peak(run, peak):.0f} % | {run['prepare_seconds']:.0f} "
            f"| {run['first_step_seconds']:.1f} | {_at_once(run)} |"
        )
    factors = [
        f"{factor:.2f}x for {MODEL[model]}, {TRAINED[trained]}, against {side_of(by_case[model, trained, side])}"
        for (model, trained, side), factor in speedups(results).items()
    ]
    answer = f"In the same time bfpo trains on so many times the tokens: {'; '.join(factors)}." if factors else ""
    return [
        "## How fast does it train, against TRL?",
        "",
        answer,
        "",
        *lines,
        "",
        *_not_grouped(list(by_case.values())),
        *_agreement(results),
        *_layouts(list(by_case.values())),
    ]


def _gb(megabytes: float | None) -> str:
    return "" if megabytes is None else f"{megabytes / 1024:.1f}"


def _at_once(run: Result) -> str:
    case = run["case"]
    kept = "; layers recomputed" if case["checkpointing"] or case["side"] == "shipped" else ""
    if case["side"] in OURS:
        return f"{case['tokens']:,} tokens{kept}"
    return f"{case['batch'] // case['parts']} of {case['batch']} pairs{kept}"


def _agreement(results: dict[str, Result]) -> list[str]:
    """Distance of the losses on the same pairs in float32."""
    curves = {
        one["case"]["side"]: one["losses"] for one in results.values() if one["kind"] == "losses" and "losses" in one
    }
    own = curves.pop("ours", None)
    if own is None or not curves:
        return []
    apart = {
        side: max(abs(mine - other) / abs(mine) for mine, other in zip(own, curve, strict=True))
        for side, curve in curves.items()
    }
    sides = " and ".join(f"{distance:.0e} ({SIDE[side]})" for side, distance in apart.items())
    return [
        f"On the same eight short pairs in every step, over {len(own)} steps of the 28M model in float32, the losses "
        f"(mean-reduced IPO) agree with bfpo's to a relative {sides}.",
        "",
    ]


def _not_grouped(runs: Sequence[Result]) -> list[str]:
    """What holds of TRL's runs at its best that were measured before the batches had pairs of about one length."""
    old = [run for run in runs if run["case"]["side"] == "compact" and not is_grouped(run)]
    if not old:
        return []
    what = "; ".join(f"{MODEL[run['case']['workload']['model']]}, {TRAINED[run['case']['trained']]}" for run in old)
    return [
        f"**TRL is not at its best in these runs: {what}.** Its pairs were to be grouped by length, but transformers "
        "groups nothing in a set of a few batches, so that they were padded as random ones are; and with 6.7B TRL "
        "recomputed layers, which a smaller micro-batch makes unnecessary. So the factors will be smaller once these "
        "rows are measured again; the benchmark is corrected, and they wait for the next card.",
        "",
    ]


def _layouts(runs: Sequence[Result]) -> list[str]:
    chosen = [
        f"- {MODEL[run['case']['workload']['model']]}, {TRAINED[run['case']['trained']]}: "
        f"{run['layout']['layout']} layout, attention by {run['layout']['attention']} ({run['layout']['reason']}); "
        f"{run['graphs']} compiled graphs"
        for run in runs
        if run["layout"]
    ]
    return ["What bfpo chose:", "", *chosen, ""] if chosen else []


def profiles(results: dict[str, Result]) -> list[str]:
    """Where two steps' time goes, in every run that was profiled."""
    found = [result for result in results.values() if "longest" in result]
    lines = [line for one in found for line in profile(one)]
    return ["## Where does the rest of the peak go?", "", *lines] if lines else []


def profile(result: Result) -> list[str]:
    """Where two steps' time goes."""
    case = result["case"]
    what = f"{MODEL[case['workload']['model']]}, {TRAINED[case['trained']]}"
    total = sum(result["kinds_us"].values())
    kinds = [f"| {kind} | {us / 1000:.0f} | {100 * us / total:.0f} % |" for kind, us in result["kinds_us"].items()]
    longest = [
        f"| `{kernel['name'].replace('|', '/')}` | {kernel['calls']} | {kernel['us'] / 1000:.1f} "
        f"| {100 * kernel['us'] / total:.1f} % |"
        for kernel in result["longest"]
    ]
    first = next(iter(result["kinds_us"]))
    return [
        f"{what}: the GPU computes nothing for {100 * result['idle']:.0f} % of the time of two steps, and of the rest "
        f"{100 * result['kinds_us'][first] / total:.0f} % are {first}.",
        "",
        "| kind of kernel | ms | share |",
        "|---|---|---|",
        *kinds,
        "",
        "| kernel | calls | ms | share |",
        "|---|---|---|---|",
        *longest,
        "",
    ]


def attention(results: dict[str, Result]) -> list[str]:
    """Pieces against blocks by length."""
    found = {name.removeprefix("lengths "): one for name, one in results.items() if "rows" in one and "layers" in one}
    if not found:
        return []
    lines = [
        "| model | prompt + answer | tokens | pieces, ms a layer | blocks, ms a layer | pieces / blocks | pieces, GB "
        "| blocks, GB | first call of blocks, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    factors: list[float] = []
    for name, one in found.items():
        for row in one["rows"]:
            times = [row.get(kind) for kind in ("pieces", "blocks")]
            factor = times[0] / times[1] if None not in times else None
            factors += [] if factor is None else [factor]
            cells = [f"{1000 * value:.2f}" if value else row.get(f"{kind}_error", "")[:80].replace("|", "/")
                     for kind, value in zip(("pieces", "blocks"), times, strict=True)]  # fmt: skip
            lines.append(
                f"| {MODEL[name]} | {row['length']} | {row['tokens']:,} | {cells[0]} | {cells[1]} "
                f"| {'' if factor is None else f'{factor:.2f}'} | {_gb(row.get('pieces_mb'))} "
                f"| {_gb(row.get('blocks_mb'))} | {row.get('blocks_first', 0):.1f} |"
            )
    answer = f"Blocks are {min(factors):.1f} to {max(factors):.1f} times as fast as pieces." if factors else ""
    about = "Forward and backward pass through layers in bf16, with laying out the stream and its masks."
    return ["## Which attention is faster, at which length?", "", f"{answer} {about}".strip(), "", *lines, ""]


def heads(result: Result | None) -> list[str]:
    """The fused head by how many logits are in memory at once."""
    if result is None or "rows" not in result:
        return []
    best = {
        kind: min((row for row in result["rows"] if row["kind"] == kind), key=lambda row: row["seconds"])
        for kind in ("trains", "frozen")
    }
    lines = [
        "| the head | logits at once | ms | TFLOP/s | peak memory, GB |",
        "|---|---|---|---|---|",
        *(
            f"| {row['kind']} | {row['factor']} x 2^23 | {1000 * row['seconds']:.1f} "
            f"| {result['flops'][row['kind']] / row['seconds'] / 1e12:.0f} | {_gb(row['mb'])} |"
            for row in result["rows"]
        ),
    ]
    answer = (
        f"The fused head with {result['scored']:,} scored tokens and a vocabulary of 151,936 is fastest with "
        f"{best['trains']['factor']} x 2^23 logits where it trains, and {best['frozen']['factor']} x 2^23 where it is "
        "frozen."
    )
    return ["## How many logits should be in memory at once?", "", answer, "", *lines, ""]


def tests(results: dict[str, Result]) -> list[str]:
    """Outcomes and recorded figures of the tests."""
    every = [test for one in results.values() for test in one.get("tests", [])]
    if not every:
        return []
    lines = ["| test | outcome | figures |", "|---|---|---|"]
    for test in every:
        figures = "; ".join(f"{name}: {value}" for name, value in test["figures"].items()).replace("|", "/")
        lines.append(f"| `{test['name'].replace('|', '/')}` | {test['outcome']} | {figures} |")
    return ["## Does it compute the same as elsewhere?", "", f"{_outcomes(results)}.", "", *lines, ""]


def _outcomes(results: dict[str, Result]) -> str:
    outcomes = [test["outcome"] for one in results.values() for test in one.get("tests", [])]
    passed, failed, skipped = (outcomes.count(kind) for kind in ("passed", "failed", "skipped"))
    return f"{passed} tests passed, {failed} failed and {skipped} were skipped"


def _answer(results: dict[str, Result]) -> str:
    runs = training_runs(results)
    factors = [
        f"{factor:.2f} times as fast as {side_of(run)} ({MODEL[key[0]]}, {TRAINED[key[1]]})"
        for key, factor in speedups(results).items()
        if (run := runs[key])["case"]["side"] == "shipped" or is_grouped(run)
    ]
    span = f"; bfpo trains {', '.join(factors)}" if factors else ""
    missing = sum("error" in one for one in results.values())
    return f"{_outcomes(results)}{span}; {missing} of {len(results)} parts of the benchmark have no result."


def problems(results: dict[str, Result]) -> list[str]:
    """Parts without a result, and repeated with less memory."""
    lines = [
        f"- {name}: {(one['error'].strip().splitlines() or ['no message'])[-1][:300]}"
        for name, one in results.items()
        if "error" in one
    ]
    lines += [
        f"- {name}: ran out of memory first with {one['tried']}" for name, one in results.items() if one.get("tried")
    ]
    return ["## What didn't run?", "", *lines, ""] if lines else []


def write_report(results: dict[str, Result], folder: Path) -> None:
    """Write ``gpu.md``; nothing without a result."""
    if not results:
        return
    card: dict[str, Any] = results.get("card", {})
    peak = card.get("bf16_flops")
    about = (
        f"{card.get('device', 'the GPU')}, {card.get('memory_gb', 0):.0f} GB: {peak / 1e12:.0f} TFLOP/s in bf16 and "
        f"{card['fp32_flops'] / 1e12:.0f} in float32 (8192-cubed products), copying at "
        f"{card['copied_bytes_a_second'] / 1e12:.2f} TB/s read and written; torch {card['torch']}, CUDA {card['cuda']}."
        if peak
        else "a card that was not measured."
    )
    lines = [
        "# On a GPU",
        "",
        "Does bfpo compute the same on a GPU as elsewhere, and how fast does it train there beside TRL?",
        "",
        f"**{_answer(results)}**",
        "",
        *tests(results),
        *speeds(results, peak),
        *profiles(results),
        *attention(results),
        *heads(results.get("heads")),
        *problems(results),
        "## What was measured",
        "",
        "Random weights in public shapes, and generated pairs with 139 tokens per prompt and 110 per answer on average "
        "(lognormal). Every part is a process of its own. Times of steps end when the device has finished; the first "
        "step is apart. *Preparation* includes choosing the layout and its compilation for bfpo, and the reference "
        "where it is precomputed. *Peak memory* is that of training, and *planned* what `bfpo train --plan` expects "
        "of it on a GPU. *Share of the matmul peak* counts only unavoidable FLOPs: no padding, no recomputation, the "
        "prompt once for bfpo and twice for TRL.",
        "",
        "## To run it again",
        "",
        f"Made by `make bench-gpu` (nine minutes; another run measures what is missing) on {about}",
    ]
    (folder / "gpu.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
