"""The primary claims: hand-made records, and what the table makes of them."""

from _report import trained, write

from experiments.report.claims import claims
from experiments.report.found import gathered
from experiments.report.sections import sections

SEEDS = range(
    7
)  # all differences of one sign: p = 2 / 2^7 = 0.0156, which Holm raises at most 9 times
NAMES = ("zenith", "sgd", "sgd-cosine", "zenith,l2=0.0003", "sgd,l2=0.0003")


def table(folder, runs, names=NAMES, whole=True):
    """The lines by claim, each the cells after its task."""
    found = gathered(write(folder, *runs), {"digits": dict.fromkeys(names, len(SEEDS))})
    (section,) = sections(found, apart=False, complete=whole)
    _, _, *lines = claims(section).split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(name, says): rest for name, says, _, *rest in cells}


def asked():
    """ZENITH a point above SGD and level with cosine; to the loss it takes twice as long."""
    slow, fast = [0.5] * 9 + [0.005], [0.5] * 4 + [0.005]
    flat = {"sharpness": [2.0], "sharpness_loss": [0.1] * 9 + [0.01]}
    sharp = {"sharpness": [8.0], "sharpness_loss": [0.1] * 9 + [0.01]}
    averaged = {"averaged_accuracy": [91.0], "cooldown_accuracy": [10.0, 95.0]}
    for seed in SEEDS:
        off = 0.01 * (-1) ** seed
        yield trained([91.0], slow, seed=seed, measures=flat)
        yield trained([90.0], fast, optimizer="sgd", seed=seed, measures=sharp | averaged)
        yield trained([91.0 + off], slow, optimizer="sgd-cosine", seed=seed)
        yield trained([90.5], slow, seed=seed, l2=0.0003)


def test_the_claims_by_hand(tmp_path):
    found = table(tmp_path, asked())
    assert [name for name, _ in found] == ["P1", "P2", "P3", "P4", "P5", "P6", "P6", "P7", "P8"]
    lines = {name: cells for (name, says), cells in found.items() if not says.startswith("...")}
    # Of nine tests one has no runs, so a p of 1; the lowest, 0.0156, Holm raises nine times.
    assert lines["P1"] == ["7", "+1.00 [+1.00, +1.00]", "0.016", "0.14", "too few seeds"]
    assert lines["P3"] == ["7", "x 0.50 [0.50, 0.50]", "0.016", "0.14", "too few seeds"]
    assert lines["P4"][1] == "-0.50 [-0.50, -0.50]"
    assert lines["P5"] == ["none", "-", "-", "-", "no number"]
    assert lines["P6"][1] == "x 4.00 [4.00, 4.00]"  # 8 by 2
    assert found["P6", "... and is flatter at a loss of 0.03"][1] == "x 4.00 [4.00, 4.00]"
    # The mean of seven of -0.01, +0.01, ...: -0.01 / 7; by Student's t of six degrees 2.4469.
    assert lines["P2"][1:] == ["-0.00 [-0.01, +0.01]", "1", "1", "held: a tie"]
    assert lines["P7"][4] == "held: a tie"
    assert lines["P8"][1] == "+4.00 [+3.99, +4.01]"


def test_there_is_no_verdict_before_every_run_is_there(tmp_path):
    found = table(tmp_path, asked(), whole=False)
    words = {name: verdict for (name, _), (*_, verdict) in found.items()}
    assert words.pop("P5") == "-"
    assert {*words.values()} == {"under way"}
    assert found["P2", "ZENITH ties with SGD + cosine"][1] == "-0.00 [-0.01, +0.01]"


def test_a_miss_of_the_loss_is_compared_by_order(tmp_path):
    runs = [
        *(trained([90.0], [0.5], seed=seed) for seed in SEEDS),
        *(trained([90.0], [0.5] * seed + [0.005], optimizer="sgd", seed=seed) for seed in SEEDS),
    ]
    found = table(tmp_path, runs, ("zenith", "sgd"))
    quick = found["P3", "ZENITH is faster than constant SGD"]
    assert quick[:2] == ["7", "ahead in 0, behind in 7"]
    assert quick[2] == "0.016"  # seven times slower, whatever the steps
    assert quick[4] == "contradicted here"


def test_where_nobody_comes_to_the_loss_the_accuracy_is_the_target(tmp_path):
    runs = [
        *(trained([80.0, 80.0, 90.0], [0.5], seed=seed) for seed in SEEDS),
        *(trained([80.0] * 5 + [90.0], [0.5], optimizer="sgd", seed=seed) for seed in SEEDS),
    ]
    found = table(tmp_path, runs, ("zenith", "sgd"))
    quick = found["P3", "ZENITH is faster than constant SGD"]
    assert quick == ["7", "x 2.00 [2.00, 2.00]", "0.016", "0.031", "held"]
