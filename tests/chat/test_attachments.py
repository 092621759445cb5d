"""Files: only text and images, only for their owner, only as a download, and gone with what they belong to."""

from datetime import timedelta
from io import BytesIO

import pytest
from django.core.files.storage import storages
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from apps.chat.attachments import AttachmentLimits, attach, keep, kind_of, read, remove_due, safe_name
from apps.chat.models import ATTACHMENT_NAME_LENGTH, Attachment, StoredFile
from apps.operations.deletion import begin_deletion, delete_now
from apps.vocabulary import ErrorCode, Refusal, ThreadId, UserId, new_id
from tests.chat.calling import check_problem
from tests.chat.chat_room import Room

pytestmark = pytest.mark.django_db(transaction=True)

LIMITS = AttachmentLimits(bytes=1_000, bytes_per_user=1_500, unattached_hours=24)
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 20


def upload(person, name, content, **more):
    file = BytesIO(content)
    file.name = name
    headers = {"Authorization": f"Bearer {person.token}"}
    return Client().post("/api/attachments", {"file": file}, headers=headers, **more)


def test_a_file_is_kept_and_comes_back_as_a_download_for_its_owner_alone(ann, bob):
    answer = upload(ann, "notes.md", "# Grüße".encode())
    assert answer.status_code == 201
    kept = answer.json()
    assert (kept["name"], kept["type"], kept["bytes"]) == ("notes.md", "text/markdown", len("# Grüße".encode()))
    got = ann.call("GET", f"attachments/{kept['id']}")
    assert got.content == "# Grüße".encode()
    assert got["Content-Disposition"] == 'attachment; filename="notes.md"'
    assert got["X-Content-Type-Options"] == "nosniff"
    assert got["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert got["Cache-Control"] == "private, no-store"
    check_problem(bob.call("GET", f"attachments/{kept['id']}"), 404, "not_found")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.png", PNG, "image/png"),
        ("a.txt", PNG, "image/png"),
        ("a.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 9, "image/jpeg"),
        ("a.gif", b"GIF89a" + b"\0" * 9, "image/gif"),
        ("a.webp", b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        ("a.html", b"<script>alert(1)</script>", "text/plain"),
        ("a.svg", b"<svg onload='alert(1)'/>", "text/plain"),
        ("a.csv", b"=cmd|' /C calc'!A0", "text/csv"),
        ("noending", "größer".encode(), "text/plain"),
    ],
)
def test_what_a_file_is_says_its_content(name, content, kind):
    assert kind_of(name, content) == kind


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"MZ\x90\0", b"%PDF-1.7\n\xe2\xe3", b"PK\x03\x04", b"\xff\xfeh\0", b"a\x1b[31m"]
)
def test_anything_else_is_refused_and_nothing_is_kept(ann, content):
    check_problem(upload(ann, "a.png", content), 400, "bad_request")
    assert not Attachment.objects.exists()
    assert not StoredFile.objects.exists()


def test_an_upload_is_stopped_at_the_bound_of_one_file(ann, services, settings):
    settings.CONFIGURATION = type(settings.CONFIGURATION)(attachment_bytes=70_000)
    services.configuration = settings.CONFIGURATION
    assert upload(ann, "a.txt", b"x" * 70_000).status_code == 201
    check_problem(upload(ann, "a.txt", b"x" * 70_001), 413, "input_too_large")
    check_problem(upload(ann, "a.txt", b"x" * 5_000_000), 413, "input_too_large")
    assert Attachment.objects.count() == 1


def test_a_users_files_have_a_bound_together(ann, bob):
    keep(ann.user_id, "a.txt", b"x" * 1_000, LIMITS)
    with pytest.raises(Refusal) as refused:
        keep(ann.user_id, "a.txt", b"x" * 501, LIMITS)
    assert refused.value.code is ErrorCode.QUOTA_EXCEEDED
    keep(bob.user_id, "a.txt", b"x" * 1_000, LIMITS)


@pytest.mark.parametrize("body", [b"", b"--x\r\n", b"--x--\r\n", b"nonsense"])
def test_a_broken_multipart_is_a_bad_request(ann, body):
    headers = {"Authorization": f"Bearer {ann.token}"}
    answer = Client().generic("POST", "/api/attachments", body, "multipart/form-data; boundary=x", headers=headers)
    check_problem(answer, 400, "bad_request")


def test_ten_thousand_parts_are_refused(ann):
    part = b'--x\r\nContent-Disposition: form-data; name="f%d"; filename="f"\r\n\r\na\r\n'
    body = b"".join(part % number for number in range(10_000)) + b"--x--\r\n"
    headers = {"Authorization": f"Bearer {ann.token}"}
    answer = Client().generic("POST", "/api/attachments", body, "multipart/form-data; boundary=x", headers=headers)
    assert answer.status_code in {400, 413}
    assert not Attachment.objects.exists()


def test_a_message_holds_its_files_in_the_event_the_snapshot_and_the_agents_input():
    room = Room()
    thread_id = room.thread().pk
    file = keep(room.user_id, "notes.txt", b"hello", LIMITS)
    room.ask(thread_id, "look", attachments=(file.pk,))
    part = {"type": "attachment", "id": file.pk, "name": "notes.txt", "media_type": "text/plain", "bytes": 5}
    (queued,) = room.events("turnout.run.queued")
    assert queued["event"]["value"]["message"]["parts"] == [part]
    assert room.snapshot(thread_id)["messages"][0]["parts"] == [part]
    claimed = room.claim()
    assert claimed.run.attachments == [file.pk]
    room.end(claimed)
    again = room.ask(thread_id, None, retry_of=claimed.lease.run_id)
    assert room.claim().run.attachments == [file.pk]
    assert again["message_id"] == queued["event"]["value"]["message"]["id"]


def test_a_file_of_another_user_or_thread_is_not_found():
    room, other = Room(), Room()
    thread_id, second = room.thread().pk, room.thread().pk
    file = keep(room.user_id, "a.txt", b"mine", LIMITS)
    foreign = keep(other.user_id, "a.txt", b"theirs", LIMITS)
    attach(room.user_id, ThreadId(thread_id), [file.pk])
    for wrong in (foreign.pk, new_id(), file.pk):
        with pytest.raises(Refusal) as refused:
            room.ask(second, "look", attachments=(wrong,))
        assert refused.value.code is ErrorCode.NOT_FOUND
    with pytest.raises(Refusal):
        read(room.user_id, foreign.pk)


def test_what_no_message_holds_goes_after_a_day_and_the_rest_with_its_thread():
    room = Room()
    thread_id = room.thread().pk
    held, fresh, old = (keep(room.user_id, "a.txt", b"x", LIMITS) for _ in range(3))
    room.ask(thread_id, "look", attachments=(held.pk,))
    Attachment.objects.filter(pk__in=[held.pk, old.pk]).update(created_at=timezone.now() - timedelta(hours=25))
    remove_due(LIMITS)
    assert set(Attachment.objects.values_list("pk", flat=True)) == {held.pk, fresh.pk}
    room.conversation.delete_thread(room.identity, thread_id)
    remove_due(LIMITS)
    assert set(Attachment.objects.values_list("pk", flat=True)) == {fresh.pk}
    assert set(StoredFile.objects.values_list("pk", flat=True)) == {fresh.stored_as}


def test_a_deleted_user_leaves_no_file_also_in_another_storage(ann, settings, tmp_path):
    folder = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path)}}
    settings.STORAGES = settings.STORAGES | {"attachments": folder}
    file = keep(ann.user_id, "a.txt", b"x", LIMITS)
    assert storages["attachments"].exists(file.stored_as)
    begin_deletion(UserId(ann.user_id))
    delete_now(UserId(ann.user_id), 10)
    assert not Attachment.objects.exists()
    assert not storages["attachments"].exists(file.stored_as)


@given(st.text())
def test_any_name_becomes_one_that_can_be_saved(name):
    safe = safe_name(name)
    assert 1 <= len(safe) <= ATTACHMENT_NAME_LENGTH
    assert not set(safe) & set("/\\\0\r\n\u202e")
    assert safe not in {".", ".."}


@pytest.mark.parametrize(
    ("name", "safe"),
    [("../../etc/passwd", "passwd"), ("C:\\a\\b.txt", "b.txt"), ("", "file"), ("..", "file"), ("a\r\nb.md", "ab.md")],
)
def test_a_name_is_no_path(name, safe):
    assert safe_name(name) == safe


def test_a_long_name_keeps_its_ending():
    assert safe_name("x" * 500 + ".csv").endswith("x.csv")
