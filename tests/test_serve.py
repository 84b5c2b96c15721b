"""project/serve.py: what Daphne as we run it does beyond Daphne."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from project.serve import clip, may_be_sent, without_secrets
from tests.servers import Daphne, Servers, clean_environment

STRANGE = "tests.strange:application"
CAP = 2048


@pytest.fixture(scope="module")
def strange(module_daphne: Servers) -> Daphne:
    """One server for all tests that leave it as it was."""
    return module_daphne(STRANGE, env={"LLM_MAX_FRAME_BYTES": str(CAP)})


def dial(server: Daphne, name: str = "call") -> ClientConnection:
    return connect(f"{server.ws_url}/{name}", close_timeout=5)


def closing(socket: ClientConnection) -> tuple[int, str]:
    """Code and reason the peer sees next; 1006 without a close frame."""
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=20)
    frame = closed.value.rcvd
    return (frame.code, frame.reason) if frame else (1006, "")


def tell(server: Daphne, order: str) -> tuple[int, str]:
    with dial(server) as socket:
        socket.send(order)
        return closing(socket)


class TestClosing:
    @pytest.mark.parametrize("code", [1000, 1002, 1007, 1008, 1011, 1012, 3000, 4001])
    def test_the_peer_sees_the_code_and_the_reason(self, strange: Daphne, code: int) -> None:
        assert tell(strange, f"close {code} Cannot parse incoming message.") == (code, "Cannot parse incoming message.")

    def test_a_long_reason_is_cut_between_two_characters(self, strange: Daphne) -> None:
        assert tell(strange, f"close 1011 {'é' * 100}") == (1011, "é" * 61)

    @pytest.mark.parametrize("code", [999, 1005, 1006, 1015, 2000, 5000])
    def test_a_code_that_may_not_be_sent_is_the_applications_failure(self, strange: Daphne, code: int) -> None:
        assert not may_be_sent(code)
        assert tell(strange, f"close {code}") == (1011, "Server error")

    def test_a_failing_application_closes_at_once(self, strange: Daphne) -> None:
        """Daphne would look for it once a second."""
        started = time.monotonic()
        assert {tell(strange, "raise") for _ in range(5)} == {(1011, "Server error")}
        assert time.monotonic() - started < 2

    def test_an_application_that_just_ends_is_no_hang_up(self, strange: Daphne) -> None:
        assert tell(strange, "return") == (1011, "Server error")

    @pytest.mark.parametrize(("name", "status"), [("deny", 403), ("fail", 500)])
    def test_a_refusal_is_an_http_answer(self, strange: Daphne, name: str, status: int) -> None:
        with pytest.raises(InvalidStatus) as refused:
            dial(strange, name)
        assert refused.value.response.status_code == status

    def test_no_server_name_is_told(self, strange: Daphne) -> None:
        with dial(strange) as socket:
            assert socket.response is not None
            assert "Server" not in socket.response.headers

    def test_clip_keeps_what_fits(self) -> None:
        assert [clip("a" * 123), clip("a" * 124), clip("é" * 62)] == [b"a" * 123, b"a" * 123, "é".encode() * 61]


class TestSizes:
    def test_a_frame_above_the_cap_reaches_the_application(self, strange: Daphne) -> None:
        with dial(strange) as socket:
            socket.send("x" * 2 * CAP)
            assert socket.recv() == str(2 * CAP)

    def test_a_frame_far_above_is_dropped_unread(self, strange: Daphne) -> None:
        assert tell(strange, "x" * (2 * CAP + 1)) == (1006, "")

    def test_the_command_line_has_the_last_word(self, daphne: Servers) -> None:
        options = ["--websocket-max-message-size=100", "--websocket-max-frame-size=100"]
        assert tell(daphne(*options, STRANGE), "x" * 101) == (1006, "")


class TestLog:
    def test_there_is_no_access_log_unless_asked_for(self, strange: Daphne) -> None:
        tell(strange, "close 1000")
        get(strange, "/page?q=Anna")
        assert "Anna" not in strange.log
        assert "llm-websocket" not in strange.log

    def test_an_access_log_holds_no_key_and_no_query(self, daphne: Servers) -> None:
        server = daphne("--access-log=-", STRANGE)
        with connect(f"{server.ws_url}/k0123abcd-secret/call_1?name=Anna"):
            pass
        get(server, "/page?q=Anna")
        server.process.wait_for(r'"WSDISCONNECT /llm-websocket/\*\*\*/call_1"')
        server.process.wait_for(r'"GET /page" 200')
        assert "secret" not in server.log
        assert "Anna" not in server.log

    @pytest.mark.parametrize(
        ("path", "logged"),
        [
            ("/admin/login/?next=/x", "/admin/login/"),
            ("/llm-websocket/call_1", "/llm-websocket/call_1"),
            ("/llm-websocket/k0123abcd-sEcr_et-0/call_1/", "/llm-websocket/***/call_1"),
            ("/llm-websocket/mistyped/call_1", "/llm-websocket/***/call_1"),
            ("/llm-websocket/k0123abcd-sEcr_et-0", "/llm-websocket/***"),
            ("/elsewhere/k0123abcd-sEcr_et-0/", "/elsewhere/***/"),
        ],
    )
    def test_what_is_left_of_a_path(self, path: str, logged: str) -> None:
        assert without_secrets(path) == logged


class TestStopping:
    def test_without_calls_it_ends_at_once_and_well(self, daphne: Servers) -> None:
        server = daphne(STRANGE, env={"DRAIN_S": "600"})
        assert server.terminate() == 0

    def test_a_call_may_end_by_itself(self, daphne: Servers) -> None:
        server = daphne(STRANGE, env={"DRAIN_S": "600"})
        with dial(server) as call:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait_for("calls still live: 1")
            call.send("still here")
            assert call.recv() == "10"
        assert server.process.wait() == 0

    def test_nobody_comes_in_any_more(self, daphne: Servers) -> None:
        server = daphne(STRANGE, env={"DRAIN_S": "600"})
        kept_alive = http.client.HTTPConnection("127.0.0.1", server.port)
        kept_alive.request("GET", "/")
        kept_alive.getresponse().read()
        with dial(server):
            server.process.send_signal(signal.SIGTERM)
            server.process.wait_for("calls still live: 1")
            with pytest.raises(ConnectionRefusedError):
                dial(server)
            assert kept_alive.sock.recv(1) == b""

    def test_pages_are_dropped_at_once(self, daphne: Servers) -> None:
        server = daphne(STRANGE, env={"DRAIN_S": "600"})
        with dial(server) as call, connect(f"ws://127.0.0.1:{server.port}/ws/calls") as page:
            server.process.send_signal(signal.SIGTERM)
            assert closing(page) == (1006, "")
            call.send("still here")
            assert call.recv() == "10"

    def test_what_stays_is_dropped_without_a_close_frame_and_cleans_up(self, daphne: Servers) -> None:
        """The youngest socket included, which makes Daphne's own shutdown fail."""
        server = daphne(STRANGE, env={"DRAIN_S": "0.2"})
        with ExitStack() as stack:
            calls = [stack.enter_context(dial(server, "slow")) for _ in range(4)]
            server.process.send_signal(signal.SIGTERM)
            assert [closing(call) for call in calls] == [(1006, "")] * 4
        assert server.process.wait() == 0
        assert server.log.count("disconnected 1006") == 4
        assert server.log.count("slow is clean") == 4

    def test_a_stuck_application_is_cancelled(self, daphne: Servers) -> None:
        server = daphne(STRANGE, env={"DRAIN_S": "0"})
        with dial(server, "stuck"), dial(server, "slow"):
            assert server.terminate() == 0
        assert "stuck is clean" in server.log
        assert "slow is clean" in server.log

    def test_the_same_stop_twice_is_one_stop(self, daphne: Servers) -> None:
        server = daphne(STRANGE, env={"DRAIN_S": "0.2"})
        with dial(server, "slow"):
            server.process.send_signal(signal.SIGINT)
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait() == 0
        assert "slow is clean" in server.log

    def test_who_insists_need_not_wait(self, daphne: Servers) -> None:
        server = daphne(STRANGE, env={"DRAIN_S": "600"})
        with dial(server):
            assert insist(server) == -signal.SIGTERM


class TestStarting:
    def test_a_taken_port_is_said(self, strange: Daphne) -> None:
        code, said = start(strange.env, "--port", str(strange.port), STRANGE)
        assert code == 1
        assert "Address already in use" in said

    def test_without_a_place_it_listens_on_host_and_port(self, strange: Daphne) -> None:
        """The port is taken, so that the message names it and the server ends."""
        code, said = start({**strange.env, "HOST": "127.0.0.1", "PORT": str(strange.port)}, STRANGE)
        assert code == 1
        assert f"127.0.0.1:{strange.port}" in said

    def test_a_wrong_setting_is_one_line(self) -> None:
        code, said = start(clean_environment(DEBUG="0"))
        assert code == 1
        assert said.startswith("project.serve: SECRET_KEY is not set.")
        assert said.count("\n") == 1


def get(server: Daphne, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", path, headers={"Connection": "close"})
    assert connection.getresponse().read() == b"ok"


def insist(server: Daphne) -> int:
    """The exit code after as many signals as it takes."""
    for _ in range(100):
        server.process.send_signal(signal.SIGTERM)
        try:
            return server.process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("It takes no notice.")


def start(env: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code and output of a server that cannot start."""
    command = [sys.executable, "-m", "project.serve", *arguments]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_record_of_dropped_calls_is_complete(daphne: Servers, database: str) -> None:
    """With the real application: what calls have noted until SIGTERM is in the database afterwards."""
    server = daphne(database=database, env={"DRAIN_S": "0", "RECORD_EVERY_S": "60"})
    with ExitStack() as stack:
        for number in range(20):
            call = stack.enter_context(dial(server, f"call_{number}"))
            assert "How may I help you?" in str(call.recv(10))
        assert server.terminate() == 0
    assert server.rows("SELECT count(*) AS calls FROM calls_call") == [{"calls": 20}]
    assert server.rows("SELECT count(*) AS greetings FROM calls_turn WHERE text = %s", "How may I help you?") == [
        {"greetings": 20}
    ]
    assert "ERROR" not in server.log
