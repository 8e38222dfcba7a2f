import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from modules.core.errors import DarkroomError, OutOfMemory
from modules.web.answers import MAX_SHOWN, add_error_answers, failure_view


@pytest.fixture
def client() -> TestClient:
    site = FastAPI()
    add_error_answers(site)

    @site.get("/known")
    def known() -> None:
        raise OutOfMemory("Too big.", "Make it smaller.")

    @site.get("/unknown")
    def unknown() -> None:
        raise RuntimeError("a wire came loose")

    @site.get("/typed")
    def typed(number: int, other: float) -> None:
        raise AssertionError

    return TestClient(site, raise_server_exceptions=False)


def test_a_known_error_has_its_status_and_says_what_to_do(client) -> None:
    answer = client.get("/known")
    assert answer.status_code == 507
    assert answer.json() == {"error": "OutOfMemory", "detail": "Too big. Make it smaller.", "body": "",
                             "errors": "Too big. Make it smaller.", "message": "Too big.", "hint": "Make it smaller."}


def test_an_unexpected_error_is_named_without_a_traceback(client) -> None:
    answer = client.get("/unknown")
    assert answer.status_code == 500 and answer.json()["error"] == "RuntimeError"
    assert "a wire came loose" in answer.json()["message"] and "File " not in answer.text


def test_every_field_of_a_wrong_type_is_named(client) -> None:
    answer = client.get("/typed?number=x")
    assert answer.status_code == 422 and answer.json()["error"] == "InvalidRequest"
    assert answer.json()["message"].startswith("number: ") and "; other: " in answer.json()["message"]


def test_routes_and_methods_that_do_not_exist_have_the_same_shape(client) -> None:
    for answer, status in ((client.get("/nothing"), 404), (client.post("/known"), 405)):
        assert answer.status_code == status and answer.json()["message"]
    assert client.post("/known").headers["allow"] == "GET"


def test_a_message_of_any_kind_can_be_sent() -> None:
    view = failure_view(DarkroomError("\ud800" + "x" * 100_000))
    assert len(view["message"]) <= MAX_SHOWN + 3 and view["message"].encode()
