import http.server
import json
import queue
import re
import shutil
import subprocess
import threading
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

import tradefm_gym
from tradefm_gym import comparing, viewing
from tradefm_gym.cli import main
from tradefm_gym.envs.depth_history import COLUMNS, DepthHistory
from tradefm_gym.envs.depth_picture import depth_picture

FLOW = "zero_intelligence"
PASSIVE, EAGER = np.array([0.0, -0.5], np.float32), np.array([0.0, 0.8], np.float32)


def record(act, task="Execution", seed=3, folder=None, **options):
    env = tradefm_gym.EpisodeRecorder(gym.make(f"TradeFM/{task}-v0", flow=FLOW, decisions=12, **options), folder)
    env.reset(seed=seed)
    ended = False
    while not ended:
        *_, terminated, truncated, _ = env.step(act(len(env.episode().actions)))
        ended = terminated or truncated
    return env


def shift(episode):
    """Of cash + inventory at the arrival mid, without fees."""
    lots = int(episode.inventory[-1] - episode.inventory[0])
    return int(episode.cash[-1] - episode.cash[0]) + lots * round(2 * episode.mid[0]) * 500


@pytest.fixture(scope="module")
def passive():
    return record(lambda t: PASSIVE)


@pytest.fixture(scope="module")
def eager():
    return record(lambda t: EAGER if t >= 4 else PASSIVE)


def test_recording_changes_nothing(passive):
    env = gym.make("TradeFM/Execution-v0", flow=FLOW, decisions=12)
    env.reset(seed=3)
    rewards = [env.step(PASSIVE)[1] for _ in range(len(passive.episode().actions))]
    assert rewards == passive.episode().rewards.tolist()
    assert env.unwrapped.session.tape_hash(0) == passive.session.tape_hash(0)


def test_a_recording_is_what_happened(passive):
    episode, session = passive.episode(), passive.session
    looks = len(episode.actions) + 1
    assert episode.prices.shape == (looks, 2, 20)
    assert episode.event[-1] == len(episode.tape_kind) and episode.about["lost"] == 0
    mine = episode.fill_side != 0
    lots = (episode.fill_side * episode.fill_size.astype(np.int64))[mine]
    assert lots.sum() == episode.inventory[-1] == session.market.accounts["inventory"][0, 0] != 0
    assert -(lots * episode.fill_price[mine] * 1000).sum() == episode.cash[-1]
    held = [lots[episode.fill_event[mine] < end].sum() for end in episode.event]
    assert held == episode.inventory.tolist()  # each fill lies in its own interval
    assert len(episode.own) and all(lots > 0 for _, _, lots in episode.own)
    first, end, price, _ = episode.quotes.T
    for look, event in enumerate(episode.event):  # own orders by their spans are those that the seat has
        assert set(price[(first < event) & (end >= event)]) == set(episode.own[episode.own[:, 0] == look, 1])
    assert np.allclose(episode.terms.sum(axis=1), -episode.rewards)
    assert (episode.tape_mid2[episode.event[1:] - 1] == episode.mid2[1:]).all()


@pytest.mark.parametrize("options", [{}, {"taker_fee": 70, "maker_fee": -20, "counterfactual": True}])
@pytest.mark.parametrize("task", ["Execution", "MarketMaking"])
def test_costs_of_trades_add_up_to_the_account(task, options):
    rng = np.random.default_rng(1)
    width = {"Execution": 2, "MarketMaking": 4}[task]
    env = record(lambda t: rng.uniform(-1, 1, width).astype(np.float32), task, **options)
    episode = env.episode()
    costs = comparing.costs(episode)
    assert any(costs.values())
    assert sum(costs[name] for name in comparing.PAID) - costs["fees"] == -shift(episode)
    assert costs["fees"] == episode.fees[-1]
    assert ("impact_on_twin" in costs) == ("counterfactual" in options)
    if task == "MarketMaking":
        paid = comparing.in_basis_points(episode, sum(costs[name] for name in comparing.PAID))
        unfilled = episode.terms[:, episode.about["terms"].index("unfilled")].sum()
        assert paid == pytest.approx(unfilled - episode.rewards.sum(), abs=1e-6)


def test_costs_of_two_trades_by_hand():
    # Mid 100 at first; 10 lots bought at 101 by taking, which moves it to 101; 4 sold at 103 while resting, at 102.
    episode = SimpleNamespace(
        fill_side=np.array([1, 0, -1], np.int8), fill_made=np.array([False, False, True]),
        fill_size=np.array([10, 7, 4], np.int32), fill_price=np.array([101, 102, 103], np.int32),
        fill_event=np.array([0, 1, 3]), event=np.array([0, 2, 4]), mid=np.array([100.0, 101.5, 104.0]),
        mid2=np.array([200, 203, 208]), tape_mid2=np.array([202, 203, 204, 208], np.int32), fees=np.array([0, 0, 5]),
        twin_mid=np.array([100.0, 99.0, 99.0]),
    )  # fmt: skip
    assert comparing.costs(episode) == {  # pyright: ignore[reportArgumentType]
        "spread_paid": 10_000, "spread_earned": -4_000, "timing": -8_000, "fees": 5,
        "adverse_selection": 8_000, "impact": 15_000, "impact_on_twin": -12_000,
    }  # fmt: skip


def test_episodes_are_stored_and_read(passive, tmp_path):
    episode = passive.episode()
    again = tradefm_gym.Episode.load(passive.save(tmp_path / "a.npz"))
    for name, array in vars(episode).items():
        np.testing.assert_array_equal(getattr(again, name), array)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    record(lambda t: EAGER, folder=tmp_path / "all")
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["3-0.npz"]


def test_where_two_episodes_part(passive, eager):
    a, b = passive.episode(), eager.episode()
    assert comparing.first_difference(a, b) == 4
    assert comparing.first_difference(a, a) is None
    other = record(lambda t: PASSIVE, seed=4).episode()
    with pytest.raises(ValueError, match="compare has two episodes of seed 3 and 4; they must be of one seed and task"):
        comparing.first_difference(a, other)


def test_the_command_writes_pages(passive, eager, tmp_path, capsys):
    a, b, page = passive.save(tmp_path / "a.npz"), eager.save(tmp_path / "b.npz"), tmp_path / "page.html"
    assert main(["view", str(a), "--out", str(page)]) == 0
    single = page.read_text()
    assert main(["view", "--compare", str(a), str(b), "--out", str(page)]) == 0
    text = page.read_text()
    assert "first differ at <b>decision 5</b>" in text
    for one, count in ((single, 1), (text, 2)):
        assert not re.search(r"__[A-Z]+__|src=|https?://", one)  # nothing is left to fill in or to fetch
        data = json.loads(re.search(r"const EPISODES = (.*);\n", one)[1])
        assert [len(data), data[0]["terms"]] == [count, ["spread", "timing", "fees", "unfilled"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz", "page.html"]
    (tmp_path / "text.npz").write_text("text")
    for words, said in (
        ([str(tmp_path / "none.npz")], "cannot be read"),
        ([str(tmp_path / "text.npz")], "it must name an episode of version 1"),
        ([], "view got 0 episodes; it takes one, or --compare and two"),
        ([str(a), "--out", str(tmp_path / "no" / "page.html")], "cannot be written"),
    ):
        assert main(["view", *words]) == 2
        assert said in capsys.readouterr().err


def test_other_environments_are_not_recorded(passive, tmp_path):
    with pytest.raises(ValueError, match="must be one of TradeFM's environments of a single agent"):
        tradefm_gym.EpisodeRecorder(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="call reset first"):
        tradefm_gym.EpisodeRecorder(passive.env).episode()


class Told(http.server.BaseHTTPRequestHandler):
    """Serves one page and keeps what the page tells."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.page if self.path == "/" else b"")

    def do_POST(self):
        self.server.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.do_GET()

    def log_message(self, *_):
        pass


def test_a_browser_draws_the_page(eager, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium on this machine")
    page = tmp_path / "page.html"
    viewing.write_view(eager.episode(), page)
    # A script at the end zooms and steps, as a hand would, and tells what is painted as soon as anything is: a
    # browser draws when it comes to it, which on a busy machine takes any number of seconds.
    script = """<script>zoom(90, 0.5); show(7);
    setInterval(() => {
      const canvas = panels[0].map, paint = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const told = {colours: new Set(new Uint32Array(paint.data.buffer)).size, text: document.body.innerText};
      if (told.colours > 1) fetch('/told', {method: 'POST', body: JSON.stringify(told)});
    }, 200)</script></body>"""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        server.page, server.told = page.read_text().replace("</body>", script).encode(), queue.Queue()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server", f"--user-data-dir={tmp_path}"]
        with subprocess.Popen([browser, *options, f"http://127.0.0.1:{server.server_port}/"], stderr=-3) as shown:
            try:
                told = server.told.get(timeout=120)
            finally:
                shown.terminate()
                server.shutdown()
    assert "decision 7 of 12" in told["text"]
    assert told["colours"] > 20


def test_pictures_show_depth_orders_fills_and_forget_at_reset():
    env = gym.make("TradeFM/Execution-v0", flow=FLOW, render_mode="rgb_array")
    env.reset(seed=1)
    history = env.unwrapped.history
    first = env.render()
    assert (first.shape, first.dtype) == ((480, 640, 3), np.uint8)
    for _ in range(5):
        env.step(EAGER)
    columns = history.columns(0)
    assert len(columns) == 6
    mine = sum((column.trades[:, 1] * column.trades[:, 2]).sum() for column in columns)
    assert mine == columns[-1].inventories[0] == env.unwrapped.session.market.accounts["inventory"][0, 0] != 0
    sold = mine < 0
    marks = [(255, 110, 220) if sold else (80, 200, 255), (38, 166, 124), (222, 82, 82), (236, 239, 244)]
    frame = env.render()
    assert all((frame == mark).all(axis=2).any() for mark in marks)
    np.testing.assert_array_equal(frame, env.render())  # looking twice adds nothing
    saved = env.unwrapped.snapshot()
    env.step(PASSIVE)
    assert (env.render() == (255, 200, 60)).all(axis=2).any()
    env.unwrapped.restore(saved)
    env.render()
    assert len(history.columns(0)) == 1  # what came after is not the past of this state
    env.reset(seed=1)
    np.testing.assert_array_equal(env.render(), first)


def test_pictures_of_nothing_and_of_many_columns():
    assert depth_picture([]).shape == (480, 640, 3)
    env = gym.make_vec("TradeFM/MarketMaking-v0", 2, flow=FLOW, render_mode="rgb_array", interval=2, decisions=COLUMNS)
    env.reset(seed=5)
    for _ in range(COLUMNS + 3):  # through the reset of its own
        env.step(np.zeros((2, 4), np.float32))
    frames = env.render()
    assert len(env.history.columns(0)) == 3 and not np.array_equal(*frames)
    assert isinstance(env.history, DepthHistory)
