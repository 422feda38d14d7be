"""The page's API draws valid requests, refuses invalid ones with a message, and reads no other files."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

if TYPE_CHECKING:
    from tests.pipelines.webpage.conftest import Page


@pytest.fixture(scope="module")
def client(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(page.url, verbose=False, download_files=str(tmp_path_factory.mktemp("answers")))


def draw(client: Client, references: Any, **more: Any) -> tuple[Path, Path, dict[str, Any]]:
    picture, heat, made = client.predict(
        references=references, **{"prompt": "a photo of a person", **more}, api_name="/draw"
    )
    return Path(picture), Path(heat), made


def test_the_same_request_gives_the_same_bytes(client: Client, page: Page, drawn_people: list[Path]) -> None:
    one, other, different = (draw(client, [handle_file(drawn_people[0])], seed=seed) for seed in (3, 3, 4))
    assert one[0].read_bytes() == other[0].read_bytes() != different[0].read_bytes()
    assert one[2]["seed"] == 3
    assert one[2]["model"] == page.model == client.predict(api_name="/model")
    with Image.open(one[0]) as picture, Image.open(one[1]) as heat:
        assert picture.size == (64, 64)
        assert heat.size == (512, 512), "enlarged for the page"


def test_words_of_a_face_prompt_that_are_not_used_are_named(client: Client, drawn_people: list[Path]) -> None:
    reference = [handle_file(drawn_people[0])]
    assert "note" not in draw(client, reference, face_prompts=["sad"])[2]
    assert "'looking up'" in draw(client, reference, face_prompts=["sad, looking up"])[2]["note"]


def test_two_people_in_their_boxes(client: Client, drawn_people: list[Path]) -> None:
    references = [handle_file(photo) for photo in drawn_people]
    boxes = [[0, 0, 1, 0.5], [0, 0.5, 1, 1]]
    plain = draw(client, references, boxes=boxes)
    asked = draw(client, references, boxes=boxes, face_prompts=["sad", "happy, turned to the left"])
    assert plain[0].read_bytes() != asked[0].read_bytes()


def test_a_list_of_references_is_one_person(client: Client, drawn_people: list[Path]) -> None:
    one, other = (handle_file(photo) for photo in drawn_people)
    alone, both = draw(client, [one]), draw(client, [[one, other]], face_prompts=["sad"])
    assert alone[0].read_bytes() != both[0].read_bytes()
    assert "may show different people" in both[2]["note"]
    with pytest.raises(AppError, match="person 1: 9 references"):
        draw(client, [[one] * 9])


def test_strength_yaw_and_a_driving_photo(client: Client, drawn_people: list[Path]) -> None:
    one, other = (handle_file(photo) for photo in drawn_people)
    plain = draw(client, [one], face_prompts=["happy"])
    half = draw(client, [one], face_prompts=["happy"], strength=[0.5], yaw=[70.0])
    assert plain[0].read_bytes() != half[0].read_bytes()
    assert "yaw 70 is beyond" in half[2]["note"]
    driven = draw(client, [one, other], driving=[None, one], driving_faces=[0, 1])
    assert driven[0].read_bytes() != draw(client, [one, other])[0].read_bytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"references": []}, "0 people"),
        ({"references": [0, 1, 0, 1, 0]}, "5 people"),
        ({"boxes": [[0, 0, 1, 2]]}, "between 0 and 1"),
        ({"face_prompts": ["sad", "sad"]}, "2 face prompts for 1 person"),
        ({"references": "noise.png"}, "no face found"),
        ({"references": "text.jpg"}, "no picture in it"),
    ],
)
def test_an_invalid_request_is_refused_with_a_message(
    client: Client, drawn_people: list[Path], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    Image.effect_noise((200, 200), 40).save(tmp_path / "noise.png")
    (tmp_path / "text.jpg").write_text("no picture")
    wanted = changed.get("references", [0])
    files = [tmp_path / wanted] if isinstance(wanted, str) else [drawn_people[index] for index in wanted]
    more = {name: value for name, value in changed.items() if name != "references"}
    with pytest.raises(AppError, match=message):
        draw(client, [handle_file(file) for file in files], **more)
    assert draw(client, [handle_file(drawn_people[0])])[0].is_file(), "the next request is drawn"


@pytest.mark.parametrize("path", ["/etc/hostname", "../../../../../../etc/hostname", "params.yaml"])
def test_files_that_were_not_uploaded_are_not_read(page: Page, client: Client, path: str) -> None:
    with pytest.raises((AppError, ValueError)):
        client.predict([{"path": path, "meta": {"_type": "gradio.FileData"}}], "a photo", api_name="/draw")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{page.url}/gradio_api/file={path}", timeout=30)
    assert 400 <= refused.value.code < 500


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b'{"data": [[{"path": "http://127.0.0.1/x"}], "a", null, null, 0]}', 400),
        (b'{"data": "nothing"}', 422),
    ],
)
def test_malformed_requests_are_refused(page: Page, client: Client, body: bytes, status: int) -> None:
    head = {"Content-Type": "application/json"}
    assert requests.post(f"{page.url}/gradio_api/call/draw", body, headers=head, timeout=30).status_code == status
    assert client.predict(api_name="/model") == page.model


def test_simultaneous_requests_are_all_answered(client: Client, drawn_people: list[Path]) -> None:
    jobs = [
        client.submit(
            references=[handle_file(drawn_people[0])], prompt="a photo of a person", seed=number % 2, api_name="/draw"
        )
        for number in range(8)
    ]
    answers = [Path(job.result(timeout=120)[0]).read_bytes() for job in jobs]
    assert len(set(answers[::2])) == len(set(answers[1::2])) == 1, "one picture per seed"
    assert len(set(answers)) == 2
