import json
import subprocess
import sys

import pytest

from tradefm_gym import bench, cli, doctor

KEYS = ["name", "value", "unit", "reference", "ratio", "target", "met", "hardware"]
HARDWARE = {"cpu", "cores", "threads", "load", "date", "system", "python", "tradefm-gym", "numba", "numpy", "torch"}


def measurement(**changes):
    return bench.Measurement(**{"name": "x", "value": 30.0, "unit": "events/s", "hardware": {"threads": 1}} | changes)


def test_a_measurement_speaks_the_one_format():
    row = measurement(reference=20.0, target=40.0).to_json()
    assert list(row) == KEYS
    assert (row["value"], row["ratio"], row["met"]) == (30.0, 1.5, False)
    row = measurement(target=30.0).to_json()
    assert (row["reference"], row["ratio"], row["met"]) == (None, None, True)
    assert measurement().to_json()["met"] is None


def test_the_median_leaves_out_the_warm_up_and_rewinds_each_run():
    calls = []
    work = bench.Work(lambda: calls.append("run") or 7, lambda: calls.append("rewind"))
    assert bench.median_rate(work, 3) > 0
    assert calls == ["rewind", "run"] * 4


def test_a_reference_takes_turns_and_a_share_is_that_of_neighbours(monkeypatch):
    ticks, calls = iter(range(10**6)), []

    def work(name, done):
        return lambda quick: bench.Work(lambda: calls.append(name) or done, lambda: None)

    one = bench.Benchmark(
        "x", "a", 1, work("a", 30), 0.9, is_share=True, beside=work("b", 40), clock=lambda: next(ticks)
    )
    measured = one.measure(True)
    assert calls == ["a", "b"] * 4
    assert (measured.value, measured.reference, measured.ratio, measured.target) == (30, 40, 0.75, 36)
    assert measured.met is False


def test_a_rate_that_is_known_is_reported_as_it_is():
    roof = bench.Benchmark("roof", "a", 1, lambda quick: 120.0, 100.0, reference=lambda quick: 80.0)
    measured = roof.measure(True)
    assert (measured.value, measured.reference, measured.ratio, measured.met) == (120.0, 80.0, 1.5, True)


def test_the_books_are_measured_beside_others(capsys, monkeypatch, tmp_path):
    from tradefm_gym import bench_book, bench_peers

    monkeypatch.setattr(bench_peers, "STREAMS", tmp_path)  # without files the streams are drawn
    monkeypatch.setattr(bench_book, "DAY", tmp_path / "day")
    names = [benchmark.name for benchmark in bench.benchmarks(suite="book")]
    assert {"book-shallow", "book-deep-64", "book-deep-calls", "peer-sortedcontainers-deep", "peer-bourse-shallow",
            "book-resting-100000", "market-n256-two-cores"} <= set(names)  # fmt: skip
    assert cli.main(["bench", "book", "--json", "--quick", "--only", "day-checked"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == [] and "skipped day-checked" in captured.err


@pytest.mark.parametrize("name", ["market-n1", "execution-zero_intelligence-n1", "execution-zero_intelligence-n64"])
def test_a_quick_benchmark_prints_json(capsys, name):
    assert cli.main(["bench", "--json", "--quick", "--only", name]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert list(row) == KEYS
    assert row["name"] == name
    assert row["value"] > 0
    assert row["hardware"].keys() == HARDWARE


def test_the_engine_is_measured_against_torch_where_that_is_installed(capsys):
    assert cli.main(["bench", "--json", "--quick", "--only", "engine-n1"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["value"] > 0
    assert (row["reference"] is None) == (row["hardware"]["torch"] is None)


def test_what_cannot_run_is_left_out_with_a_reason(capsys, monkeypatch):
    def prepare(quick):
        raise ValueError("there is no such day")

    lost = bench.Benchmark("lost", "steps/s", 1, prepare)
    monkeypatch.setattr(bench, "benchmarks", lambda only, suite: [lost])
    assert cli.main(["bench", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == []
    assert "skipped lost: there is no such day" in captured.err


def test_the_table_shows_every_row(capsys):
    cli.print_table([measurement(name=name, target=1.0).to_json() for name in ("market-n1", "engine-n64")])
    printed = capsys.readouterr().out
    assert "market-n1" in printed
    assert "engine-n64" in printed


def test_threads_are_given_back():
    import numba

    before = numba.get_num_threads()
    with bench.thread_count(1) as threads:
        assert threads == numba.get_num_threads() == 1
    assert numba.get_num_threads() == before


def test_the_rollout_of_known_outcome_is_as_expected():
    # A change of the rules of market, flow or role changes it: then set doctor.EXPECTED_TAPE anew and say why.
    assert doctor.reference_tape() == doctor.EXPECTED_TAPE


def test_the_doctor_prints_a_line_for_each_finding(capsys, monkeypatch):
    findings = [doctor.Finding("numba", "1.0"), doctor.Finding("bundled model", "missing", False)]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.split("\n")[:2] == ["ok    numba: 1.0", "wrong bundled model: missing"]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings[:1]))
    assert cli.main(["doctor"]) == 0


def test_the_doctor_looks_at_everything():
    found = {finding.name: finding for finding in doctor.examine()}
    assert {"tradefm-gym", "numba", "compiler's cache", "bundled model", "zero-intelligence rollout"} <= found.keys()
    assert found["numba"].sound
    for flow in ("hawkes", "tradefm"):
        assert found[f"{flow} rollout"].sound and ", tape " in found[f"{flow} rollout"].value


@pytest.mark.parametrize("flow", ["hawkes", "tradefm"])
def test_the_doctor_says_why_a_rollout_fails(monkeypatch, flow):
    def broken(name):
        raise ValueError(f"{name} is broken")

    monkeypatch.setattr(doctor, "_episode", broken)
    assert doctor._rollout(flow) == doctor.Finding(f"{flow} rollout", f"{flow} is broken", False)


def test_a_mistake_of_the_user_is_one_sentence_and_status_2():
    command = [sys.executable, "-m", "tradefm_gym.cli", "bench", "--only", "marmalade"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("tradefm-gym: only is 'marmalade'; allowed is")
    assert result.stderr.count("\n") == 1


def test_an_empty_name_measures_nothing(capsys):
    assert cli.main(["bench", "--only", ""]) == 2
    assert capsys.readouterr().err.startswith(
        "tradefm-gym: only is ''; allowed is a name, or a part of one, of market-n1"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Expected one of {bench, doctor, data, fit, realism, paper, simulate, train,"),  # the line ends there
        (["dance"], "Available subcommands: bench, doctor, data"),
        (["bench", "--qick"], "--quick"),
        (["bench", "--only"], "Missing value for argument '--only'"),
        (["bench", "--json", "3"], "invalid choice '3' for argument 'suite'"),
        (["bench", "book", "3"], "Unrecognized options: 3"),
        (["doctor", "--foo"], "Unrecognized options: --foo"),
    ],
)
def test_wrong_arguments_are_named(capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert said in captured.err + captured.out


def test_an_interrupted_command_is_one_line_and_status_130(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Doctor, "run", interrupted)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "tradefm-gym: interrupted\n"


@pytest.mark.parametrize("module", ["tradefm_gym", "tradefm_gym.cli"])
def test_an_unknown_command_is_refused_without_a_traceback(module):
    result = subprocess.run([sys.executable, "-m", module, "dance"], capture_output=True, text=True)
    assert "Available subcommands: bench, doctor, data" in result.stderr + result.stdout
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("way", ["snapshot", "snapshot-to-bytes", "snapshot-from-bytes", "restore", "fork"])
def test_copies_of_markets_are_measured(capsys, way):
    assert cli.main(["bench", "book", "--json", "--quick", "--only", f"{way}-100-n1"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["name"] == f"{way}-100-n1" and found["unit"] == "markets/s" and found["value"] > 0


@pytest.mark.parametrize("flow", ["hawkes", "zero-intelligence"])
def test_where_a_fit_cannot_be_written_is_said_before_the_day_is_read(tmp_path, capsys, flow):
    (tmp_path / "file").write_text("")
    for out, said in (
        (tmp_path, "a folder; it must name a file"),
        (tmp_path / "file" / "x.json", "is no folder; it must"),
    ):
        assert cli.main(["fit", flow, "--data", str(tmp_path / "no day"), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"tradefm-gym: out is {str(out)!r}") and said in error
    assert cli.main(["fit", flow, "--data", str(tmp_path / "no day"), "--out", str(tmp_path / "new" / "x.json")]) == 2
    assert "no day' does not exist" in capsys.readouterr().err and not (tmp_path / "new").exists()
