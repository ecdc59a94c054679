"""What rows of scores say: intervals, what was learnt, effective lengths, a ranking, correlations."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..stats import Interval, mean, stratified_bootstrap

KEEPS = 0.85  # of the value at the first length, for a length to count as reached
_FEWEST = 30  # answers that make a class
FLOOR = 0.5  # the normalised score below which no effective length is defined
FEWEST_CORES = 8  # points below which no rank correlation is given
FEWEST_PAIRS = 6  # below which no sign test can find anything: of five on one side, p = 2/32
WIDE, SCATTERED = 3, 1.5  # the scope and the diffusion from which on they are called so
_REPS = 1000

Row = Mapping[str, Any]


def normalized(row: Row, scores: Any) -> np.ndarray:
    """0 at the blind figure, 1 at the reference's."""
    blind, reference = row["blind"]["value"], row["reference"]["value"]
    return (np.asarray(scores, float) - blind) / (reference - blind)


def interval(row: Row) -> Interval:
    """The mean normalised score; seeds, and each seed's episodes, are resampled."""
    return stratified_bootstrap(normalized(row, row["blocks"]), mean, _REPS, shared_runs=True)


def is_learnt(row: Row) -> bool:
    """Whether the interval's lower end lies above blind, whose own error counts too."""
    error = row["blind"]["std_error"] / (row["reference"]["value"] - row["blind"]["value"])
    return interval(row).low > 1.96 * error


def probes_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by what is asked: the probe, the options that vary, the lengths trained and tested at."""
    rows = list(rows)
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(_name(row, rows), []).append(row)
    return found


def _name(row: Row, rows: Sequence[Row]) -> str:
    """The probe, its length, and the options in which it differs from others of its name."""
    others = [other["options"] for other in rows if other["probe"] == row["probe"]]
    varying = [
        f"{key}={value}"
        for key, value in row["options"].items()
        if key != "length" and any(other.get(key) != value for other in others)
    ]
    trained = f"{row['trained_length']}→" if row["mode"] == "extrapolate" else ""
    return " ".join([row["probe"], *varying, f"@{trained}{row['length']}"])


def not_learnt(rows: Iterable[Row]) -> list[str]:
    """The questions that no core answers better than blind at this budget."""
    return [name for name, asked in probes_of(rows).items() if not any(map(is_learnt, asked))]


def effective_lengths(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Per core and probe with several lengths: the longest up to which `KEEPS` of the first value stays.

    None where the first value is below `FLOOR`; of an extrapolation, the first length is the trained one.
    """
    series: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        options = {key: value for key, value in row["options"].items() if key != "length"}
        start = str(row["trained_length"]) if row["mode"] == "extrapolate" else ""
        series.setdefault((row["label"], row["probe"], str(options), start), []).append(row)
    found = []
    for same in series.values():
        if len(same) > 1:
            ordered = sorted(same, key=lambda row: row["length"])
            values = [float(normalized(row, row["scores"]).mean()) for row in ordered]
            effective = effective_length([row["length"] for row in ordered], values)
            first = {key: ordered[0][key] for key in ("label", "probe", "mode", "trained_length")}
            found.append({**first, "lengths": [row["length"] for row in ordered], "effective": effective})
    return found


def effective_length(lengths: Sequence[int], values: Sequence[float]) -> int | None:
    """The longest length such that no value up to it is below `KEEPS` times the first; see `FLOOR`."""
    if values[0] < FLOOR:
        return None
    reached = lengths[0]
    for length, value in zip(lengths, values, strict=True):
        if value < KEEPS * values[0]:
            break
        reached = length
    return reached


def ranking(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Cores by their mean over the questions that some core has learnt and that all were asked.

    The interval is that of a bootstrap stratified by question: each draws its own seeds. Cores with fewer
    seeds than others are ranked by those that they have.
    """
    rows = list(rows)
    asked, found = _learnt_by_some(rows), []
    for label in dict.fromkeys(row["label"] for row in rows):
        scores = [normalized(of[label], of[label]["scores"]) for of in asked]
        if not scores:
            break
        fewest = min(map(len, scores))
        values = np.stack([each[:fewest] for each in scores], -1)
        middle = stratified_bootstrap(values, mean, _REPS, resample_tasks=False)
        spread = {"low": middle.low, "high": middle.high, "seeds": fewest}
        found.append({"label": label, "mean": middle.value, **spread})
    return sorted(found, key=lambda each: -each["mean"])


def _learnt_by_some(rows: Sequence[Row]) -> list[dict[str, Row]]:
    """Rows by core of every question that some core has learnt and that all were asked."""
    left_out, labels = set(not_learnt(rows)), {row["label"] for row in rows}
    asked = {name: {row["label"]: row for row in of} for name, of in probes_of(rows).items()}
    return [of for name, of in asked.items() if name not in left_out and {*of} == labels]


def win_rates(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """How often a core does better than another in the same episodes, for all pairs, the better ranked first.

    The episodes of a seed are the same for all; compared are the means of `blocks`, and a tie is half a win
    (L-Eval, An et al. 2023, arXiv 2307.11088). The mean over the questions of `ranking`, with an interval as
    there.
    """
    rows = list(rows)
    asked, found = _learnt_by_some(rows), []
    for one, other in itertools.combinations([each["label"] for each in ranking(rows)], 2):
        wins = [_wins(of[one], of[other]) for of in asked]
        fewest = min(map(len, wins))
        if fewest:
            values = np.stack([each[:fewest] for each in wins], -1)
            middle = stratified_bootstrap(values, mean, _REPS, resample_tasks=False)
            pair = {"label": one, "other": other, "rate": middle.value}
            found.append({**pair, "low": middle.low, "high": middle.high, "seeds": fewest})
    return found


def _wins(one: Row, other: Row) -> Float[np.ndarray, " S"]:
    """The share of blocks in which `one` is better, of every seed that both have."""
    apart = np.array([np.subtract(*pair) for pair in _same_seeds(one, other, lambda row: row["blocks"])])
    return (np.sign(apart).mean(-1) + 1) / 2 if len(apart) else np.zeros(0)


def _same_seeds(one: Row, other: Row, kept: Callable[[Row], Sequence[Any]]) -> list[tuple[Any, Any]]:
    """What both have `kept` of every seed that both have."""
    mine, theirs = (dict(zip(row["seeds"], kept(row), strict=True)) for row in (one, other))
    return [(mine[seed], theirs[seed]) for seed in mine if seed in theirs]


def of_categories(rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """`ranking` within each category of probes, where some core has learnt some of it."""
    return _ranked_by(lambda row: row["category"], rows)


def of_classes(rows: Iterable[Row], classes: Callable[[str], Sequence[str]]) -> list[dict[str, Any]]:
    """Classes of cores by the mean of `ranking` over their cores, each with its best; `classes` are a core's.

    A core has several, or none if it is a user's own; what is a baseline of a core is none of its class.
    """
    rows = list(rows)
    cores = {row["label"]: row["core"] for row in rows if row.get("baseline") is None}
    of: dict[str, list[dict[str, Any]]] = {}
    for each in ranking(rows):  # the best first
        for name in classes(cores[each["label"]]) if each["label"] in cores else ():
            of.setdefault(name, []).append(each)
    found = [
        {
            "class": name,
            "mean": float(np.mean([each["mean"] for each in ranked])),
            "best": ranked[0]["label"],
            "labels": [each["label"] for each in ranked],
        }
        for name, ranked in of.items()
    ]
    return sorted(found, key=lambda each: -each["mean"])


def by_distance(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Of each question and core, the share of right answers by how far back lies what they depend on.

    A class begins `steps` back and ends before twice as many (LooGLE's short and long dependencies, Li et al.
    2023, arXiv 2311.04939); one of fewer than 30 answers is left out. Seeds are resampled.
    """
    found = []
    for name, of in probes_of(rows).items():
        for row in of:
            counted = np.array(row.get("tallies", {}).get("distance", np.zeros((1, 2, 0))))
            answered = counted[:, 1]
            for k in np.flatnonzero((answered > 0).all(0) & (answered.sum(0) >= _FEWEST)):
                share = _share(counted[..., k])
                answers = int(answered[:, k].sum())
                found.append(
                    {"question": name, "label": row["label"], "steps": 2 ** int(k), "answers": answers}
                )
                found[-1] |= share
    return found


def of_retrieval(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Per `keep` of `baseline=retrieve`, whether it helps answers of `short` dependency more or `long` ones.

    A pair is a core, a question and a seed, with retrieval and without it. Its classes of `by_distance` are
    cut in two where the two sides' numbers of answers are most alike, and each side's gain is the share of
    right answers with retrieval minus that without. Counted are the pairs in which the shorter side gains
    more, in which the longer one does, and `ties`; `p` is of the exact two-sided sign test without ties, None
    below `FEWEST_PAIRS`. A pair with a side of fewer than 30 answers is left out. (LooGLE, Li et al. 2023,
    arXiv 2311.04939, finds that retrieval helps short dependencies.)
    """
    rows = list(rows)
    plain = {_core_and_question(row): row for row in rows if row.get("baseline") is None}
    leads: dict[int, list[float]] = {}
    for row in rows:
        if row.get("baseline") != "retrieve":
            continue
        label, _, keep = row["label"].rpartition(" retrieve ")  # as a question's label is made
        without = plain.get(_core_and_question({**row, "label": label}))
        for mine, other in _same_seeds(row, without, _by_distance) if without else ():
            lead = _lead_of_short(*np.array([mine, other], float))
            if lead is not None:
                leads.setdefault(int(keep), []).append(lead)
    found = []
    for keep, each in leads.items():
        short, long = sum(lead > 0 for lead in each), sum(lead < 0 for lead in each)
        p = sign_test(short, long) if short + long >= FEWEST_PAIRS else None
        found.append({"keep": keep, "short": short, "long": long, "ties": len(each) - short - long, "p": p})
    return found


def _core_and_question(row: Row) -> tuple[Any, ...]:
    return *(row[key] for key in ("label", "probe", "mode", "trained_length")), str(row["options"])


def _by_distance(row: Row) -> Sequence[Any]:
    return row.get("tallies", {}).get("distance", [np.zeros((2, 0))] * len(row["seeds"]))


def _lead_of_short(found: Float[np.ndarray, "2 K"], without: Float[np.ndarray, "2 K"]) -> float | None:
    """By how much retrieval's gain on the shorter classes exceeds that on the longer; None of too few."""
    answered = np.minimum(found[1], without[1])
    if len(answered) < 2:
        return None
    before = answered.cumsum()
    cut = 1 + int(np.abs(2 * before - before[-1])[:-1].argmin())
    sides = [np.stack([found, without])[..., part] for part in (slice(cut), slice(cut, None))]
    counts = [side.sum(-1) for side in sides]  # of each side [with or without, right or asked]
    if min(count[:, 1].min() for count in counts) < _FEWEST:
        return None
    short, long = (right[0] / asked[0] - right[1] / asked[1] for right, asked in (c.T for c in counts))
    return round(short - long, 9)  # so that equal gains are a tie


def sign_test(one: int, other: int) -> float:
    """The exact two-sided p of so many signs of either kind, if both are equally likely."""
    number = one + other
    tail = sum(math.comb(number, k) for k in range(min(one, other) + 1))
    return min(1.0, 2 * tail / 2**number)


def of_outputs(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """How often the first `outputs` of an answer are `all` right, as many for all settings of a probe.

    It is the largest power of two that no episode's answer is shorter than, at any length and with any
    options, so that neither long answers nor short ones are favoured (L-Eval, An et al. 2023, arXiv
    2307.11088, controls the length of answers as well). Where a rule is to be kept, `all` are allowed
    instead. Seeds are resampled.
    """
    found: list[dict[str, Any]] = []
    counted = {
        name: [row for row in of if "outputs" in row.get("tallies", {})]
        for name, of in probes_of(rows).items()
    }
    most: dict[str, int] = {}
    for of in counted.values():
        for row in of:
            asked = np.array(row["tallies"]["outputs"])[:, 1]
            k = int((asked == asked[:, :1]).all(0).sum()) - 1
            most[row["probe"]] = min(most.get(row["probe"], k), k)
    for name, of in counted.items():
        for row in of:
            k = most[row["probe"]]
            share = _share(np.array(row["tallies"]["outputs"])[..., k])
            all_are = "allowed" if "kept" in row.get("measures", {}) else "right"
            asked_of = {"question": name, "length": row["length"], "label": row["label"]}
            found.append({**asked_of, "outputs": 2**k, "all": all_are, **share})
    return found


def of_lengths(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """How well the shortest of a probe's lengths ranks cores as the longest does, both by `of_outputs`.

    Spearman's rho, cores resampled; none below `FEWEST_CORES` cores (LongSafety, Lu et al. 2025, arXiv
    2502.16971, finds that safety at short length need not tell of that at long length).
    """
    lengths: dict[str, dict[tuple[int, str], dict[str, float]]] = {}
    for each in of_outputs(rows):
        of = lengths.setdefault(each["question"].rpartition("@")[0], {})
        of.setdefault((each["length"], each["question"]), {})[each["label"]] = each["right"]
    found = []
    for of in lengths.values():
        (_, one), (_, other) = min(of), max(of)
        labels = [label for label in of[min(of)] if label in of[max(of)]]
        if one != other and len(labels) >= FEWEST_CORES:
            short, long = (np.array([of[end][label] for label in labels]) for end in (min(of), max(of)))
            found.append({"one": one, "other": other, **rank_correlation(short, long)})
    return found


def _share(counted: Float[np.ndarray, "S 2"]) -> dict[str, Any]:
    """Right ones of all, the mean over seeds with an interval."""
    middle = stratified_bootstrap(counted[:, :1] / counted[:, 1:], mean, _REPS, resample_tasks=False)
    return {"right": middle.value, "low": middle.low, "high": middle.high, "seeds": len(counted)}


def of_quadrants(rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """`ranking` within each `quadrant`, where some core has learnt some of it."""
    return _ranked_by(quadrant, rows)


def quadrant(row: Row) -> str:
    """How much an answer depends on, and how far apart that lies (Goldman et al. 2024, arXiv 2407.00402)."""
    scope = f"scope {WIDE} or more" if row["scope"] >= WIDE else f"scope below {WIDE}"
    apart = row["diffusion"] >= SCATTERED
    return f"{scope}, diffusion {f'{SCATTERED} or more' if apart else f'below {SCATTERED}'}"


def _ranked_by(kind: Callable[[Row], str], rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    of: dict[str, list[Row]] = {}
    for row in rows:
        of.setdefault(kind(row), []).append(row)
    found = {name: ranking(each) for name, each in of.items()}
    return {name: ranked for name, ranked in found.items() if ranked}


def correlations(rows: Iterable[Row]) -> dict[str, Any] | None:
    """Spearman's rank correlations over cores, between questions and the means of categories and quadrants.

    None below `FEWEST_CORES` cores.
    """
    rows = list(rows)
    labels = list(dict.fromkeys(row["label"] for row in rows))
    asked = {name: of for name, of in probes_of(rows).items() if len(of) == len(labels)}
    if len(labels) < FEWEST_CORES or len(asked) < 2:
        return None
    scores = [[float(normalized(row, row["scores"]).mean()) for row in of] for of in asked.values()]
    found = {"questions": list(asked), "spearman": spearman(np.array(scores)).tolist()}
    for kinds, kind in (("categories", lambda row: row["category"]), ("quadrants", quadrant)):
        members: dict[str, list[list[float]]] = {}
        for of, values in zip(asked.values(), scores, strict=True):
            members.setdefault(kind(of[0]), []).append(values)
        means = np.array([np.mean(values, 0) for values in members.values()])
        found |= {kinds: list(members), f"spearman_of_{kinds}": spearman(means).tolist()}
        found[f"intervals_of_{kinds}"] = [
            {"one": one, "other": other, **rank_correlation(means[i], means[j])}
            for (i, one), (j, other) in itertools.combinations(enumerate(members), 2)
        ]
    return found


def predictions(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """How well each question ranks cores as projected control does: Spearman's rho, cores resampled.

    Control is the mean score of the probes `projected_…`; none without these, and none below `FEWEST_CORES`
    cores (HELMET, Yen et al. 2024, arXiv 2410.02694, asks so of cheap tests).
    """
    rows = list(rows)
    labels = list(dict.fromkeys(row["label"] for row in rows))
    scores = {
        name: [float(normalized(row, row["scores"]).mean()) for row in of]
        for name, of in probes_of(rows).items()
        if [row["label"] for row in of] == labels
    }
    control = [each for name, each in scores.items() if _is_control(name)]
    if len(labels) < FEWEST_CORES or not control:
        return []
    target = np.mean(control, 0)
    cheap = {name: np.array(each) for name, each in scores.items() if not _is_control(name)}
    return [{"question": name, **rank_correlation(each, target)} for name, each in cheap.items()]


def _is_control(question: str) -> bool:
    return question.startswith("projected_")


def rank_correlation(one: Float[np.ndarray, " C"], other: Float[np.ndarray, " C"]) -> dict[str, Any]:
    """Spearman's rho of C cores and its 95 % interval, cores resampled.

    `shuffled` is the same where every resample gives the cores of `other` new labels at random: an interval
    that covers 0, and outside which a rho is more than chance.
    """
    generator, cores = np.random.default_rng(0), len(one)
    drawn = generator.integers(cores, size=(_REPS, cores))
    shuffled = generator.permuted(np.tile(np.arange(cores), (_REPS, 1)), axis=1)

    def ends(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        return np.quantile([spearman(np.stack(pair))[0, 1] for pair in pairs], [0.025, 0.975]).tolist()

    low, high = ends([(one[draw], other[draw]) for draw in drawn])
    chance = ends([(one[draw], other[names][draw]) for draw, names in zip(drawn, shuffled, strict=True)])
    rho = float(spearman(np.stack([one, other]))[0, 1])
    return {"rho": rho, "low": low, "high": high, "shuffled": {"low": chance[0], "high": chance[1]}}


def spearman(values: Float[np.ndarray, "Q C"]) -> Float[np.ndarray, "Q Q"]:
    """Rank correlations between rows; ties share their mean rank, and a constant row correlates with none."""
    below = (values[:, None, :] < values[:, :, None]).sum(-1)
    equal = (values[:, None, :] == values[:, :, None]).sum(-1)
    ranks = below + (equal - 1) / 2
    centred = ranks - ranks.mean(-1, keepdims=True)
    norms = np.sqrt((centred**2).sum(-1))
    scale = norms[:, None] * norms
    return np.divide(centred @ centred.T, scale, out=np.zeros_like(scale), where=scale > 0)
