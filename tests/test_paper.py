"""The paper's figures beside ours."""

import json
import math

import pytest

from tradefm_gym import cli
from tradefm_gym.realism import paper
from tradefm_gym.realism.rows import Row


def card(path, *rows, **about):
    path.write_text(json.dumps({"rows": [row.to_json() for row in rows], **about}))
    return path


def row(quantity, metric, arm, value, n=500, set="day"):
    return Row(set, quantity, metric, arm, value, value - 0.01, value + 0.01, n=n)


OURS = (
    row("spread", "ks", "tradefm", 0.1),
    row("spread", "ks", "hawkes:fit.json", 0.2),
    row("spread", "ks", "zero_intelligence", 0.5),
    row("price_depth", "ks", "tradefm", 0.3, n=150),
    row("log_return_1s", "ks_over_reference", "tradefm", 0.4),
    row("fill_count_64_events", "distribution_correlation", "round_trip", 0.97),
    row("heavy_tails", "agrees", "tradefm", 1.0),
    row("order_size", "ks", "tradefm", 0.2),
)


def test_the_papers_figures_are_those_of_its_table():
    told = {(one.quantity, one.metric): (one.model, one.hawkes, one.zero_intelligence) for one in paper.PUBLISHED}
    assert told["log_return_10s", "ks"] == (0.013, 0.039, 0.376)
    assert told["spread", "ks"] == (0.238, 0.218, None) and told["spread", "w1"] == (0.4, 0.302, 0.375)
    assert told["inter_arrival", "ks"] == (0.281, 0.515, None) and told["price_depth", "ks"] == (0.169, 0.281, None)
    assert paper.PUBLISHED[0].ratio == pytest.approx(1 / 3)


def test_ours_stand_beside_them_with_ratios_over_hawkes():
    found = {one.said: one for one in paper.beside(OURS)}
    spread = found["spread, K-S"]
    assert (spread.model.value, spread.hawkes.value, spread.zero_intelligence.value) == (0.1, 0.2, 0.5)
    assert spread.ratio == pytest.approx(0.5) and spread.published_ratio == "1.09" and spread.enough
    depth = found["price depth, K-S"]
    assert depth.hawkes is None and depth.ratio is None and not depth.enough
    assert found["log return over 10 s, K-S"].model is None
    assert found["log return over 1 s, K-S over that of Hawkes"].model.value == 0.4
    assert found["fills of real orders through the simulator, correlation of counts"].arm == "round_trip"
    assert found["stylised facts that hold (1 yes, 0 no): heavy tails"].model.value == 1.0
    assert found["unseen venues (Japan and China) without training"].model is None


def test_every_set_and_model_has_all_figures():
    other = [row("spread", "ks", "tradefm:other", 0.3, set="other day")]
    found = paper.beside([*OURS, *other])
    subjects = [("day", "tradefm"), ("other day", "tradefm:other")]
    for name, arm in subjects:
        here = [one for one in found if (one.set, one.arm, one.table) == (name, arm, paper.ERRORS)]
        assert [one.said for one in here] == [one.said for one in paper.PUBLISHED]
    assert all(one.model is None for one in paper.beside([]))
    forecasts = [row("return_16_events", "crps_skill", "tradefm", 0.1, set="pooled")]  # tell nothing that is asked
    assert {one.set for one in paper.beside([*OURS, *forecasts])} == {"day"}


def test_the_command_prints_and_keeps(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(paper, "KEPT", tmp_path / "figures.json")
    assert cli.main(["paper"]) == 0
    said = capsys.readouterr().out
    assert "not measured" in said and "0.013" in said and "524,392,448" in said
    path = card(
        tmp_path / "card.json", *OURS, row("spread", "ks", "drift", 0.3), arguments={"seeds": 2, "data": "/somewhere"}
    )
    assert cli.main(["paper", "--card", str(path), "--keep", str(paper.KEPT)]) == 0
    with_card = capsys.readouterr().out
    assert "0.100 (0.090-0.110)" in with_card and "0.50" in with_card and "150 (few)" in with_card
    assert cli.main(["paper"]) == 0  # the figures that were kept
    assert capsys.readouterr().out == with_card
    kept = json.loads(paper.KEPT.read_text())
    assert kept["cards"] == [{"arguments": {"seeds": 2}}]
    assert "drift" not in {one["arm"] for one in kept["rows"]}
    assert {one["quantity"] for one in kept["rows"]} == {
        "spread", "price_depth", "log_return_1s", "fill_count_64_events", "heavy_tails",
    }  # fmt: skip


def test_the_json_says_what_was_measured(tmp_path, capsys):
    path = card(tmp_path / "card.json", *OURS)
    assert cli.main(["paper", "--card", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    spread = next(one for one in found if one["said"] == "spread, K-S")
    assert spread["measured"] and spread["ratio"] == pytest.approx(0.5) and spread["hawkes"]["value"] == 0.2
    assert not next(one for one in found if one["said"] == "log return over 10 s, K-S")["measured"]


def test_a_figure_that_is_undefined_was_not_measured(tmp_path, capsys):
    path = card(tmp_path / "card.json", Row("day", "spread", "ks", "tradefm", math.nan, n=500))
    assert cli.main(["paper", "--card", str(path)]) == 0
    assert "nan" not in capsys.readouterr().out


def test_flows_with_options_are_of_their_flow(tmp_path, capsys):
    arms = ("tradefm?habits=false", "tradefm:model?habits=false")
    found = paper.beside([row("spread", "ks", arm, 0.1) for arm in arms])
    assert [one.arm for one in found if one.said == "spread, K-S" and one.model] == list(arms)
    path = card(tmp_path / "card.json", row("spread", "ks", arms[0], 0.1), row("spread", "ks", "hawkes:a.json", 0.2))
    assert cli.main(["paper", "--card", str(path)]) == 0
    assert "day, tradefm?habits=false" in capsys.readouterr().out


def test_no_card_is_told_from_one_without_a_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(paper, "KEPT", tmp_path / "figures.json")
    path = card(tmp_path / "card.json", row("spread", "ks", "hawkes", 0.1))
    assert cli.main(["paper", "--card", str(path)]) == 0
    said = capsys.readouterr().out
    assert "no figures of a tradefm flow in the card" in said and "no card given" not in said
    assert cli.main(["paper"]) == 0
    assert "no card given" in capsys.readouterr().out


def test_where_nothing_can_be_kept_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    path, to = card(tmp_path / "card.json", *OURS), tmp_path / "file" / "kept.json"
    assert cli.main(["paper", "--card", str(path), "--keep", str(to)]) == 2
    said = capsys.readouterr().err
    assert f"path {str(to)!r} cannot be written" in said and "Errno" not in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is damaged or none (Expecting value"),
        ("[]", "is damaged or none ("),
        ('{"rows": [{"set": "day"}]}', "lacks 'quantity'"),
        ("{}", "lacks 'rows'"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_what_is_no_card_is_refused_in_one_sentence(text, why, tmp_path, capsys):
    path = tmp_path / "card.json"
    if text is not None:
        path.write_text(text)
    assert cli.main(["paper", "--card", str(path)]) == 2
    said = capsys.readouterr()
    assert str(path) in said.err and "card.json of tradefm-gym realism" in said.err and len(said.err.splitlines()) == 1
    assert why in said.err and "Error" not in said.err
    assert said.out == ""
