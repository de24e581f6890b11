"""`python -m hourglass.service`: starting, stopping, and what is said when it cannot be."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import numpy as np
import polars as pl
import pytest

from hourglass.service.__main__ import GRACEFUL_SECONDS, main
from hourglass.service.front.limits import STOPPING_SECONDS
from hourglass.service.model.artifact import Model
from hourglass.service.model.detector import Detector
from tests.artifacts import MIXED, NUMERIC, make_artifact, publish, sample_rows
from tests.posts import request
from tests.serving import ROOT, Connection, Process, wait_until


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hourglass.service", *map(str, arguments)],
        cwd=ROOT, env=environment or None, text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def test_linear_algebra_gets_no_thread_for_each_core_of_the_host(models):
    code = (
        "import os, sys, hourglass.service.__main__ as command\ncommand._serve = lambda *_:"
        " print(os.environ['OPENBLAS_NUM_THREADS'], 'numpy' in sys.modules) or"
        " 0\ncommand.main(['serve', '--models', sys.argv[1], '--port', '0'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, models], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert done.stdout == "1 False\n"


def test_a_worker_answers_its_supervisor_before_it_imports_what_takes_long(models):
    """The supervisor heeds no signal while it waits for an answer."""
    supervisor = (
        "import pickle, sys\n"
        "from hourglass.service import __main__ as command, worker\n"
        "def write(config, sockets): sys.stdout.buffer.write(pickle.dumps(config)); sys.exit()\n"
        "worker.Supervisor = write\n"
        "command.main(['serve', '--models', sys.argv[1], '--port', '0', '--workers', '2'])"
    )
    worker = (
        "import pickle, sys; config = pickle.load(sys.stdin.buffer)\n"
        "print([name for name in ('numpy', 'litestar', 'onnxruntime') if name in sys.modules])\n"
        "from uvicorn.importer import import_from_string\n"
        "print(import_from_string(config.http).__name__)"
    )
    config = subprocess.run(
        [sys.executable, "-c", supervisor, models], capture_output=True, check=True
    )
    done = subprocess.run(
        [sys.executable, "-c", worker], input=config.stdout, capture_output=True, check=False
    )
    assert done.stdout.decode().splitlines() == ["[]", "ScoringProtocol"], done.stderr


def accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port)).close()
    except ConnectionRefusedError:
        return False
    return True


class TestServing:
    @pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_lets_what_is_in_flight_finish_takes_nothing_new_and_exits_0(
        self, models, sent
    ):
        body = b'{"rows":[[1,2,3,4]]}'
        lines = (
            "POST /v1/models/plain/score HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        with Process(models) as process:
            host, port = process.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as client:
                client.sendall("\r\n".join((*lines, "", "")).encode() + body[:5])
                time.sleep(0.2)
                process.popen.send_signal(sent)
                wait_until(lambda: not accepts(host, int(port)))
                client.sendall(body[5:])
                answer = b"".join(iter(lambda: client.recv(10_000), b""))
            assert process.wait() == 0
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["model"] == "plain"
        assert "Traceback" not in "".join(process.log)

    @pytest.mark.parametrize(
        "asked",
        [request(), request(b"", method="GET", path="/health/live", kind=None, length=None)],
        ids=["score", "health"],
    )
    @pytest.mark.slow
    def test_clients_that_ask_again_and_again_have_every_answer_and_are_told_which_is_the_last(
        self, models, asked
    ):
        def ask(connection):
            """Until the server has said that it closes: how many answers there were."""
            count, said = 0, ""
            while said != "close":
                connection.send(asked)
                status, headers, _ = connection.answer()
                assert status == 200
                count, said = count + 1, headers.get("connection")
            assert connection.rest() == b""
            return count

        with Process(models) as process, ExitStack() as stack, ThreadPoolExecutor(8) as threads:
            connections = [
                stack.enter_context(Connection(httpx.Client(base_url=process.url)))
                for _ in range(8)
            ]
            idle = stack.enter_context(Connection(httpx.Client(base_url=process.url)))
            counts = [threads.submit(ask, connection) for connection in connections]
            time.sleep(0.3)
            process.popen.send_signal(signal.SIGTERM)
            assert all(count.result(timeout=20) > 10 for count in counts)
            assert idle.rest() == b""
            assert process.wait() == 0

    @pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
    def test_sighup_does_not_kill(self, models, workers):
        with Process(models, "--workers", workers) as process:
            os.killpg(process.popen.pid, signal.SIGHUP)
            time.sleep(0.5)
            answer = httpx.post(f"{process.url}/v1/models/plain/score", json={"rows": [[1] * 4]})
            assert answer.status_code == 200
            assert process.stop() == 0

    def test_the_time_to_end_fits_dockers(self):
        assert GRACEFUL_SECONDS + STOPPING_SECONDS <= 10

    def test_what_an_operator_decides_about_the_wire_is_a_flag(self, models):
        flags = (
            "--keep-alive",
            "0.5",
            "--root-path",
            "/x",
            "--allowed-hosts",
            "a.example",
            "--read-only",
        )
        with Process(models, *flags) as process:
            with Connection(httpx.Client(base_url=process.url)) as connection:
                connection.send(
                    request(b"{", "Host: a.example", path="/x/v1/models/nobody/score").replace(
                        b"Host: localhost\r\n", b""
                    )
                )
                assert json.loads(connection.answer()[2])["type"] == "/x/docs#unknown-model"
                started = time.monotonic()
                assert connection.rest() == b""
                assert time.monotonic() - started < 3
            headers = {"host": "a.example"}
            assert httpx.get(f"{process.url}/v1/models").status_code == 421
            changed = httpx.patch(f"{process.url}/v1/models/plain", json={}, headers=headers)
            assert changed.status_code == 403
            assert process.stop() == 0

    def test_it_says_where_it_serves_and_what(self, models):
        with Process(models) as process:
            assert process.stop() == 0
        assert re.search(r"^hourglass: serving .* on http://127\.0\.0\.1:\d+$", process.log[0])
        assert re.search(r"INFO .*: JSON is read and written by (C|Python)\b", process.log[1])
        assert sum("is in service" in line for line in process.log) == 2

    @pytest.mark.slow
    def test_several_workers_end_with_ctrl_c_and_leave_nothing_behind(
        self, models, tmp_path_factory
    ):
        folder = tmp_path_factory.mktemp("tmp")
        with Process(models, "--workers", "2", TMPDIR=str(folder)) as process:
            assert list(folder.iterdir())
            assert process.stop(signal.SIGINT) == 0
        assert "Traceback" not in "".join(process.log)
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
    def test_scores_are_answered_before_uvicorn_parses_anything(self, models, workers):
        """uvicorn itself would answer garbage before the request that came with it, and close."""
        body = b'{"rows":[[1,2,3,4]]}'
        head = (
            "POST /v1/models/plain/score HTTP/1.1\r\nContent-Type:"
            " application/json\r\nContent-Length: 20\r\n\r\n"
        )
        with Process(models, "--workers", workers) as process:
            host, port = process.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as client:
                client.sendall(head.encode() + body + b"garbage")
                answer = b"".join(iter(lambda: client.recv(10_000), b""))
            assert process.stop() == 0
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"400"]

    @pytest.mark.slow
    def test_a_change_made_at_one_worker_reaches_the_other(self, models):
        """Before it is answered, however seldom the folder is looked at."""
        with Process(models, "--workers", "2", HOURGLASS_POLL_SECONDS="3600") as process:
            for alpha in (0.2, 0.1, 0.3):
                change = {"alpha": alpha}
                changed = httpx.patch(f"{process.url}/v1/models/plain", json=change).json()
                assert (changed["alpha"], changed.get("until")) == (alpha, None)
                # each on a connection of its own, so that both workers get some
                found = [httpx.get(f"{process.url}/v1/models/plain").json() for _ in range(20)]
                assert {model["alpha"] for model in found} == {alpha}
            assert process.stop() == 0

    @pytest.mark.slow
    def test_changes_at_two_workers_at_once_are_merged_and_not_lost(self, models):
        with Process(models, "--workers", "2", HOURGLASS_POLL_SECONDS="3600") as process:
            url = f"{process.url}/v1/models/plain"

            def change(number: int) -> None:
                what = (
                    {"alpha": 0.1 + number / 1000} if number % 2 else {"delta": 0.1 + number / 1000}
                )
                httpx.patch(url, json=what, timeout=20).raise_for_status()

            with ThreadPoolExecutor(8) as clients:
                list(clients.map(change, range(40)))
            stored = json.loads((models / "plain" / "threshold.json").read_text())
            found = [httpx.get(url).json() for _ in range(10)]
            assert process.stop() == 0
        assert stored["alpha"] > 0.1
        assert stored["delta"] >= 0.1
        for model in found:
            assert (model["alpha"], model["delta"]) == (stored["alpha"], stored["delta"])

    @pytest.mark.slow
    def test_a_worker_that_does_not_answer_is_said_with_the_time_by_which_it_has_looked(
        self, models
    ):
        with Process(models, "--workers", "2") as process:
            children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
            workers = [
                int(pid)
                for pid in children.read_text().split()
                if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
            ]
            assert len(workers) == 2
            sockets = Path("/proc/net/unix")  # a worker that is starting still is told nothing
            wait_until(lambda: all(f"/{pid}.worker\n" in sockets.read_text() for pid in workers))
            os.kill(workers[0], signal.SIGSTOP)
            try:
                for _ in range(10):  # until one reaches the other worker
                    try:
                        answer = httpx.patch(
                            f"{process.url}/v1/models/plain", json={"alpha": 0.2}, timeout=5
                        )
                        break
                    except httpx.TimeoutException:
                        continue
            finally:
                os.kill(workers[0], signal.SIGCONT)
            until = datetime.fromisoformat(answer.json()["until"])
            assert 0 < (until - datetime.now(UTC)).total_seconds() < 10
            assert process.stop() == 0

    @pytest.mark.parametrize("name", ["plain", "plain/version", "nowhere"])
    def test_a_folder_that_is_none_of_models_is_one_sentence_that_says_what_was_meant(
        self, models, name
    ):
        (models / "plain" / "version").symlink_to(
            next((models / "plain").glob("*/model.onnx")).parent
        )
        done = run("serve", "--models", models / name, "--port", "0")
        meant = {
            "plain": f"is the folder of one model, since it holds current; --models {models} serves",
            "plain/version": "is the folder of one version, since it holds model.onnx",
            "nowhere": f"there is no folder {models / 'nowhere'} to take models from",
        }
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert meant[name] in done.stderr

    def test_an_empty_folder_is_served_and_it_is_said_what_belongs_there(self, tmp_path):
        with Process(tmp_path, HOURGLASS_POLL_SECONDS="0.05") as process:
            assert httpx.get(f"{process.url}/health/ready").status_code == 503
            publish(tmp_path, "pump", make_artifact())
            deadline = time.monotonic() + 10
            while httpx.get(f"{process.url}/health/ready").status_code == 503:
                assert time.monotonic() < deadline
            assert process.stop() == 0
        said = f"hourglass: {tmp_path} holds no model yet, expected {tmp_path}/NAME/current"
        assert process.log[0].startswith(said)

    def test_settings_come_from_the_environment_and_flags_win(self, models, tmp_path_factory):
        with Process(
            models, HOURGLASS_MODELS=str(tmp_path_factory.mktemp("none")), HOURGLASS_MAX_ROWS="2"
        ) as process:
            url = f"{process.url}/v1/models/plain/score"
            assert httpx.post(url, json={"rows": [[1, 2, 3, 4]] * 3}).status_code == 413
            assert process.stop() == 0

    def test_a_taken_port_is_one_sentence_and_exit_code_2(self, models):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = run("serve", "--models", models, "--port", port)
        assert (done.returncode, done.stdout) == (2, "")
        assert (
            done.stderr
            == f"hourglass: cannot listen on 127.0.0.1 port {port} (Address already in use); --port"
            " names another\n"
        )

    def test_an_unknown_variable_is_one_sentence_and_exit_code_2(self, models):
        done = run("serve", "--models", models, HOURGLASS_PROT="80")
        assert done.returncode == 2
        assert done.stderr.startswith(
            "hourglass: HOURGLASS_PROT is not a setting; the settings are "
        )
        assert "HOURGLASS_MAX_BODY_BYTES" in run("serve", "--help").stdout
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["serve", "--models", "/nowhere"], "hourglass: there is no folder /nowhere to take models from; --models names another"),
        (["serve", "--models", "/", "--port", "99999"], "hourglass: --port is 99999: expected int <= 65535"),
        (["serve", "--port", "x"], "hourglass serve: argument --port: invalid int value: 'x'; see hourglass serve --help"),
        (["serve", "--verbose"], "hourglass: unrecognized arguments: --verbose; see hourglass --help"),
        ([], "hourglass: the following arguments are required: serve | score | replay | stream | watch | mcp | inspect | keys; see hourglass --help"),
        (
            ["score", "m", "d", "--alpha", "2"],
            "hourglass score: argument --alpha: expected a number from 1e-9 to 0.5, got '2'; see hourglass score --help",
        ),
        (["inspect", "x" * 300], f"hourglass: {Path.cwd() / ('x' * 300) / 'current'}: File name too long"),
        (["inspect", "/nowhere"], "hourglass: /nowhere is neither a model file nor a folder with one"),
        (["inspect", "/etc"], "hourglass: /etc is neither a model file nor a folder with one"),
        (
            ["serve", "--models", ".", "--webhook", "http://a"],
            "hourglass: --webhook needs a secret to sign with, from --webhook-secret-file or from"
            " HOURGLASS_WEBHOOK_SECRET",
        ),
        (
            ["serve", "--models", ".", "--alertmanager", "a:9093"],
            "hourglass: --alertmanager: expected http://HOST/PATH or https://HOST/PATH, got 'a:9093'",
        ),
        (
            ["serve", "--models", ".", "--streams", "s.sqlite", "--workers", "2"],
            "hourglass: --streams needs --workers 1: one process has an entity's state",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_on_stderr_and_exit_code_2(arguments, sentence, capsys):
    try:
        status = main(arguments)
    except SystemExit as ended:  # argparse
        status = ended.code
    assert (status, *capsys.readouterr()) == (2, "", sentence + "\n")


@pytest.fixture
def table(tmp_path):
    """Rows of the mixed model, with a note that the model does not know."""
    rows_ND = sample_rows(MIXED, 30, seed=2)
    frame = pl.DataFrame(
        {
            "note": [f"row {n}" for n in range(30)],
            "heat": rows_ND[:, 3].astype(float),
            "site": [MIXED[2].categories[int(code)] for code in rows_ND[:, 2]],
            "open": rows_ND[:, 1].astype(bool),
            "load": [None, *rows_ND[1:, 0].astype(float)],
        }
    )
    path = tmp_path / "rows.parquet"
    frame.write_parquet(path)
    return path


class TestScoring:
    @pytest.mark.parametrize("suffix", [".parquet", ".csv"])
    def test_every_row_is_written_with_its_result_beside_it(
        self, models, table, tmp_path, suffix, capsys
    ):
        output = tmp_path / f"scored{suffix}"
        assert main(["score", str(models / "mixed"), str(table), "--output", str(output)]) == 0
        scored = pl.read_csv(output) if suffix == ".csv" else pl.read_parquet(output)
        assert scored.columns == [
            "note",
            "heat",
            "site",
            "open",
            "load",
            "score",
            "ratio",
            "p_value",
            "severity",
            "extrapolated",
            "is_anomaly",
            "reason",
        ]
        assert scored["reason"].is_null().all()  # a file of format 1.0 has none
        rows_ND = sample_rows(MIXED, 30, seed=2)
        rows_ND[0, 0] = np.nan
        detector = Detector.from_bytes(make_artifact(MIXED))
        expected = detector.score(rows_ND)
        np.testing.assert_allclose(scored["score"], expected.score, rtol=1e-6)
        np.testing.assert_allclose(scored["p_value"], expected.p_value, rtol=1e-6)
        np.testing.assert_allclose(scored["severity"], expected.severity, rtol=1e-5)
        beyond = expected.score > detector.table.scores.max()
        assert scored["extrapolated"].to_list() == beyond.tolist()
        np.testing.assert_allclose(
            scored["ratio"], expected.score / detector.threshold.score, rtol=1e-6
        )
        assert (
            scored["is_anomaly"].to_list() == (expected.score > detector.threshold.score).tolist()
        )
        said = capsys.readouterr().out
        assert "30 rows scored by mixed, version" in said
        assert f"written to {output}" in said

    def test_an_anomaly_is_written_and_shown_with_the_sentence_that_says_why(
        self, models, tmp_path, capsys
    ):
        publish(models, "reasoned", make_artifact(conditional=True))
        path, output = tmp_path / "rows.csv", tmp_path / "scored.csv"
        path.write_text("a,b,c,d\n0.1,0.2,0.1,0\n0.1,0.2,900,0\n,,,\n")
        assert main(["score", str(models / "reasoned"), str(path), "--output", str(output)]) == 0
        scored = pl.read_csv(output)
        said = "c is 900 where 0 ± 1 was expected (900 sd too high)"
        assert scored["reason"].to_list() == [None, said, None]
        assert main(["score", str(models / "reasoned"), str(path)]) == 0
        assert f"yes      {said}\n" in capsys.readouterr().out

    def test_without_output_the_strangest_rows_are_shown_with_their_reasons(
        self, models, table, capsys
    ):
        path = next(models.glob("mixed/*/model.onnx"))
        assert main(["score", str(path), str(table)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("30 rows scored by mixed, version")
        assert re.match(
            r"\d+ anomalies \(\d+\.\d%\); alpha = 0.05 holds with confidence 0.95; 3.24% of normal"
            r" rows",
            lines[1],
        )
        assert lines[3].split() == [
            "row",
            "score",
            "severity",
            "p-value",
            "anomaly",
            "mostly",
            "because",
            "of",
        ]
        scores = [float(line.split()[1]) for line in lines[4:]]
        assert len(scores) == 10
        assert scores == sorted(scores, reverse=True)

    def test_alpha_moves_the_threshold(self, models, table, tmp_path, capsys):
        for alpha in ("0.05", "0.5"):
            assert main(["score", str(models / "mixed"), str(table), "--alpha", alpha]) == 0
        few, many = re.findall(r"(\d+) anomalies", capsys.readouterr().out)
        assert int(few) < int(many)
        assert main(["score", str(models / "mixed"), str(table), "--alpha", "0.001"]) == 2
        assert (
            "cannot be certified at delta = 0.05 with 400 calibration rows"
            in capsys.readouterr().err
        )

    def test_rows_with_too_few_values_are_written_without_a_result(self, models, tmp_path, capsys):
        path, output = tmp_path / "rows.csv", tmp_path / "scored.csv"
        path.write_text("a,b,c,d\n1,2,3,4\n1,,,\n,,,\n3e38,-3e38,3e38,1\n")
        assert main(["score", str(models / "plain"), str(path), "--output", str(output)]) == 0
        scored = pl.read_csv(output)
        assert scored["score"].is_null().to_list() == [False, True, True, True]
        assert scored["is_anomaly"].is_null().to_list() == [False, True, True, True]
        assert (
            "3 rows hold too few values, or values too far out, and were not scored"
            in capsys.readouterr().out
        )

    def test_large_files_are_scored_in_parts_and_the_way_is_shown(
        self, models, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr("hourglass.service.adapters.files.CHUNK_ROWS", 7)
        rows_ND = sample_rows(NUMERIC, 20, seed=6)
        path, output = tmp_path / "rows.csv", tmp_path / "scored.parquet"
        pl.DataFrame(rows_ND.astype(float), schema=list("abcd")).write_csv(path)
        assert main(["score", str(models / "plain"), str(path), "--output", str(output)]) == 0
        assert capsys.readouterr().err == "7 of 20 rows\n14 of 20 rows\n20 of 20 rows\n"
        expected = Detector.from_bytes(make_artifact()).score(rows_ND).score
        np.testing.assert_allclose(pl.read_parquet(output)["score"], expected, rtol=1e-5)

    @pytest.mark.parametrize(
        ("content", "output", "sentence"),
        [
            (
                "a,b,c\n1,2,3\n",
                "out.csv",
                "the table has no column 'd', which the model expects (1 absent in all)",
            ),
            (
                "a,b,c,d,score,hourglass_score\n1,2,3,4,5,6\n",
                "out.csv",
                "{data} has the columns 'score' and 'hourglass_score' already, which is where a"
                " result would go",
            ),
            (
                "a;b;c;d\n1;2;3;4\n",
                "out.csv",
                "{data}: expected cells separated by ',', got a header with ';' between names:"
                " --separator ';' reads it",
            ),
            (
                "a,b,c,d\n1,2,3,4\n1,2,3,-\n",
                "out.csv",
                "column 'd', row 2: expected a number, got '-'; --null '-' reads it as missing",
            ),
            ("a,b,c,d\n1,2,3,4\n", "out.txt", "{output} is neither .csv nor .parquet"),
            (
                "a,b,c,d\n1,2,3,4\n",
                "no/out.csv",
                "{output} cannot be written: No such file or directory",
            ),
        ],
    )
    def test_what_cannot_be_done_is_one_sentence_and_leaves_no_file(
        self, models, tmp_path, content, output, sentence, capsys
    ):
        folder = tmp_path / "work"
        folder.mkdir()
        data, output = folder / "rows.csv", folder / output
        data.write_text(content)
        assert main(["score", str(models / "plain"), str(data), "--output", str(output)]) == 2
        assert (
            capsys.readouterr().err == f"hourglass: {sentence.format(data=data, output=output)}\n"
        )
        assert [path.name for path in folder.iterdir()] == ["rows.csv"]

    def test_results_beside_columns_of_their_names_have_longer_names(
        self, models, tmp_path, capsys
    ):
        data, output = tmp_path / "rows.csv", tmp_path / "out.csv"
        data.write_text("a,b,c,d,score,reason\n1,2,3,4,5,x\n")
        assert main(["score", str(models / "plain"), str(data)]) == 0
        assert "1 rows scored by plain" in capsys.readouterr().out
        assert main(["score", str(models / "plain"), str(data), "--output", str(output)]) == 0
        scored = pl.read_csv(output)
        assert scored["score"].to_list() == [5]
        assert scored["reason"].to_list() == ["x"]
        expected = Detector.from_bytes(make_artifact()).score(np.array([[1, 2, 3, 4]], np.float32))
        assert scored["hourglass_score"].to_list() == pytest.approx(expected.score.tolist())

    def test_a_file_is_read_as_the_flags_say(self, models, tmp_path, capsys):
        data, output = tmp_path / "rows.csv", tmp_path / "out.csv"
        data.write_text("# by hand\na;b;c;d\n1,5;-;1.234;-999\n2;3;4;5\n")
        flags = "--separator ; --decimal , --thousands . --comment # --null - -999".split()
        arguments = ["score", str(models / "plain"), str(data), "--output", str(output)]
        assert main([*arguments, *flags]) == 0
        scored = pl.read_csv(output)
        assert scored.rows()[0][:4] == (1.5, None, 1234.0, None)
        rows_ND = np.array([[1.5, np.nan, 1234, np.nan]], np.float32)
        expected = Detector.from_bytes(make_artifact()).score(rows_ND)
        assert scored["score"][0] == pytest.approx(expected.score[0])

    def test_flags_that_contradict_each_other_are_one_sentence(self, models, tmp_path, capsys):
        arguments = ["score", str(models / "plain"), str(tmp_path / "rows.csv")]
        assert main([*arguments, "--thousands", ",", "--decimal", ","]) == 2
        assert capsys.readouterr().err == (
            "hourglass: thousands and decimal are both ','; --decimal names another\n"
        )

    def test_the_threshold_in_force_in_the_folder_holds_here_too(self, models, table, capsys):
        (models / "mixed" / "threshold.json").write_text('{"alpha": 0.25, "delta": 0.1}')
        main(["score", str(models / "mixed"), str(table)])
        assert "alpha = 0.25 holds with confidence 0.9;" in capsys.readouterr().out


class TestInspecting:
    def test_it_says_what_the_model_is_and_what_of_the_rows_it_holds(self, tmp_path, capsys):
        version = publish(tmp_path, "pump", make_artifact(MIXED))
        assert main(["inspect", str(tmp_path / "pump")]) == 0
        said = capsys.readouterr().out
        for line in (
            "pump",
            f"version           {version}",
            "rows              1000 to fit, 100 to validate, 400 to calibrate",
            "contains          no training rows, nor averages of them",
            (
                "false alarms      alpha = 0.05 holds with confidence 0.95; 3.24% of normal rows"
                " are expected to be flagged"
            ),
            "site     categorical        north, south, west  0.0%",
            "load     numeric      kW    -3 to 3             0.0%",
        ):
            assert line in said.splitlines()

    @pytest.mark.parametrize(
        ("stores", "words"),
        [
            ("averages", "averages of training rows, which whoever has the file can read"),
            ("rows", "training rows as they are, which whoever has the file can read"),
        ],
    )
    def test_training_rows_in_the_file_are_told_plainly(self, tmp_path, capsys, stores, words):
        model = Model(
            variant="handmade", hyper_parameters={}, seed=0, parameter_count=0, stores_rows=stores
        )
        publish(tmp_path, "pump", make_artifact(model=model))
        main(["inspect", str(tmp_path / "pump")])
        assert f"contains          {words}" in capsys.readouterr().out.splitlines()

    def test_settings_in_tables_and_names_with_line_ends_stay_in_their_line(self, tmp_path, capsys):
        settings = {"width": 8, "levels": [], "views": ["log", "range"], "fit": {"steps": 9}}
        model = Model(
            variant="handmade",
            hyper_parameters={**settings, "seed": None},
            seed=0,
            parameter_count=0,
        )
        features = (msgspec.structs.replace(NUMERIC[0], name="heat\n(°C)"), *NUMERIC[1:])
        publish(tmp_path, "pump", make_artifact(features, model=model))
        assert main(["inspect", str(tmp_path / "pump")]) == 0
        said = capsys.readouterr().out.splitlines()
        assert (
            "hyper-parameters  fit.steps = 9, levels = none, views = log range, width = 8" in said
        )
        assert "heat\\n(°C)  numeric        -3 to 3  0.0%" in said

    def test_the_folder_of_a_version_and_the_folder_one_is_in_will_do(
        self, tmp_path, monkeypatch, capsys
    ):
        version = publish(tmp_path, "pump", make_artifact())
        publish(tmp_path, "pump", make_artifact(shift=1))
        assert main(["inspect", str(tmp_path / "pump" / version)]) == 0
        said = capsys.readouterr().out.splitlines()
        assert (said[0], said[2]) == ("pump", f"version           {version}")
        monkeypatch.chdir(tmp_path / "pump")
        assert main(["inspect", "."]) == 0
        assert capsys.readouterr().out.startswith("pump\n")

    def test_the_last_line_says_where_the_report_lies_where_there_is_one(self, tmp_path, capsys):
        version = publish(tmp_path, "pump", make_artifact())
        page = tmp_path / "pump" / version / "report.html"
        main(["inspect", str(tmp_path / "pump")])
        assert "Report" not in capsys.readouterr().out
        page.write_text("<!doctype html>")
        for path in (tmp_path / "pump", page.parent, page.with_name("model.onnx")):
            main(["inspect", str(path)])
            assert capsys.readouterr().out.splitlines()[-1] == f"Report {page}"

    def test_what_would_colour_the_screen_is_written_as_json_writes_it(self, tmp_path, capsys):
        name = "\x1b[2J\x1b]0;owned\x07\x9bcolour"
        features = (msgspec.structs.replace(NUMERIC[0], name=name, unit="\r\x08"), *NUMERIC[1:])
        publish(tmp_path, "pump", make_artifact(features))
        for flags in ((), ("--json",)):
            assert main(["inspect", str(tmp_path / "pump"), *flags]) == 0
            printed = capsys.readouterr().out
            assert all(each.isprintable() or each == "\n" for each in printed)
            assert "\\u001b[2J\\u001b]0;owned\\u0007\\u009bcolour" in printed
        assert json.loads(printed)["features"][0]["name"] == name

    def test_an_error_that_quotes_a_file_writes_no_control_characters_either(
        self, tmp_path, capsys
    ):
        (tmp_path / "current").write_text("\x1b[31mred\x9b")
        assert main(["inspect", str(tmp_path)]) == 2
        assert capsys.readouterr().err.isprintable() is False  # the line's end
        (tmp_path / "\x1b[31m").mkdir()
        assert main(["inspect", str(tmp_path / "\x1b[31m")]) == 2
        assert "\x1b" not in capsys.readouterr().err

    @pytest.mark.parametrize("pointer", ["../../secret", "/etc/passwd", "..", "a/../../b"])
    def test_no_pointer_leads_out_of_the_folder(self, tmp_path, capsys, pointer):
        publish(tmp_path / "secret", "pump", make_artifact())
        folder = tmp_path / "models" / "pump"
        folder.mkdir(parents=True)
        (folder / "current").write_text(pointer)
        assert main(["inspect", str(folder)]) == 2
        assert "expected a version (64 hexadecimal digits)" in capsys.readouterr().err
        (folder / "current").unlink()
        (folder / "current").symlink_to(tmp_path / "secret" / "pump" / "current")
        assert main(["inspect", str(folder)]) == 2
        assert "is a link that leads out of the folder" in capsys.readouterr().err

    def test_a_file_that_is_not_of_its_version_is_refused(self, models, capsys):
        file = next((models / "plain").glob("*/model.onnx"))
        file.write_bytes(make_artifact(shift=3))
        for path in (file, file.parent, models / "plain"):
            assert main(["inspect", str(path)]) == 2
            assert "it was changed, or cut short" in capsys.readouterr().err

    def test_as_json_it_is_the_manifest(self, models, capsys):
        assert main(["inspect", str(models / "mixed"), "--json"]) == 0
        manifest = json.loads(capsys.readouterr().out)
        assert [feature["name"] for feature in manifest["features"]] == [
            "load",
            "open",
            "site",
            "heat",
        ]
        assert manifest["calibration"]["n"] == 400

    def test_a_reader_that_stops_reading_is_no_error(self, models):
        done = subprocess.run(
            f"{sys.executable} -m hourglass.service inspect {models / 'mixed'} --json | head -1",
            shell=True, cwd=ROOT, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")
