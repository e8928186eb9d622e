"""References: the grammar case by case, both forms of a name, and properties of all of them."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unionfs.errors import ReferenceFormatError
from unionfs.image.reference import (
    MAX_PATH,
    Reference,
    check_digest,
    parse,
    parse_normalized,
)

SHA256 = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "f" * 128

# What is a reference -------------------------------------------------------------------------------------------------
PARSED = [
    # no slash: never a domain, whatever it looks like
    ("busybox", Reference("", "busybox")),
    ("busy_box", Reference("", "busy_box")),
    ("example.com:tag", Reference("", "example.com", "tag")),
    ("example.com:5000", Reference("", "example.com", "5000")),
    ("10.0.0.1", Reference("", "10.0.0.1")),
    ("10.0.0.1:5000", Reference("", "10.0.0.1", "5000")),
    ("under_score.com:8080", Reference("", "under_score.com", "8080")),
    ("lower:Upper", Reference("", "lower", "Upper")),
    # a slash: the first component is a domain if it can be one
    ("example.com/repo:tag", Reference("example.com", "repo", "tag")),
    ("host:5000/repo", Reference("host:5000", "repo")),
    ("host:5000/repo:tag", Reference("host:5000", "repo", "tag")),
    (f"host:5000/repo@{SHA256}", Reference("host:5000", "repo", None, SHA256)),
    (f"host:5000/repo:tag@{SHA256}", Reference("host:5000", "repo", "tag", SHA256)),
    ("10.0.0.1/repo", Reference("10.0.0.1", "repo")),
    ("10.0.0.1:5000/repo:5050", Reference("10.0.0.1:5000", "repo", "5050")),
    ("user/busybox", Reference("user", "busybox")),
    ("user/under_score.com:8080", Reference("user", "under_score.com", "8080")),
    ("under_score/repo", Reference("", "under_score/repo")),
    ("Upper/repo:tag", Reference("Upper", "repo", "tag")),
    ("sub-1.example.com/a/b/c:some-long-tag", Reference("sub-1.example.com", "a/b/c", "some-long-tag")),
    ("b.example.io/test.example.com/app:test.example.com", Reference("b.example.io", "test.example.com/app", "test.example.com")),  # noqa: E501
    (f"xn--n3h.com/image:xn--n3h.com@{SHA512}", Reference("xn--n3h.com", "image", "xn--n3h.com", SHA512)),
    ("[::1]:5000/repo", Reference("[::1]:5000", "repo")),
    ("[2001:db8::1]/repo", Reference("[2001:db8::1]", "repo")),
    ("[2001:db8:1:2:3:4:5:6]/repo:tag", Reference("[2001:db8:1:2:3:4:5:6]", "repo", "tag")),
    # separators inside a component
    ("a.b/c__d/e---f", Reference("a.b", "c__d/e---f")),
    ("a-a/b", Reference("a-a", "b")),
    # lengths
    ("a/" * 128 + "a:long", Reference("a", "a/" * 127 + "a", "long")),
    ("a:" + "t" * 128, Reference("", "a", "t" * 128)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reference"), PARSED)
def test_a_reference_is_taken_apart_and_written_again(text: str, reference: Reference) -> None:
    assert parse(text) == reference
    assert str(reference) == text


FORMAT = "invalid reference format"
LOWER = "repository name must be lowercase"

REFUSED = [
    ("", "repository name must have at least one component"),
    (":justtag", FORMAT),
    (f"@{SHA256}", FORMAT),
    ("repo@sha256:" + "f" * 34, "invalid checksum digest length"),
    ("repo@sha256:" + "F" * 64, "invalid checksum digest format"),
    ("repo@wrongalgorithm:" + "f" * 64, "unsupported digest algorithm"),
    ("repo@sha256:fff", FORMAT),
    ("Upper:tag", LOWER),
    ("host:5000/Upper/lower:tag", LOWER),
    ("a/" * 129 + "a:tag", "repository name must not be more than 255 characters"),
    ("aa/asdf$$^/aa", FORMAT),
    ("[2001:db8::1]", FORMAT),
    ("[2001:db8::1]:5000", FORMAT),
    ("[2001:db8::1]:tag", FORMAT),
    ("[fe80::1%eth0]:5000/repo", FORMAT),
    ("[fe80::1%@zone]:5000/repo", FORMAT),
    ("repo:", FORMAT),
    ("repo@", FORMAT),
    ("/repo", FORMAT),
    ("repo/", FORMAT),
    ("a//b", FORMAT),
    ("-repo", FORMAT),
    ("repo-", FORMAT),
    ("a..b", FORMAT),
    ("a___b", FORMAT),
    ("repo:-tag", FORMAT),
    ("repo:" + "t" * 129, FORMAT),
    ("repo\n", FORMAT),
    ("repo:tag\n", FORMAT),
    ("répo", FORMAT),
    ("repo:t\u0663g", FORMAT),  # \w of Go is ASCII
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_is_no_reference_is_refused_in_upstreams_words(text: str, message: str) -> None:
    with pytest.raises(ReferenceFormatError) as caught:
        parse(text)
    assert str(caught.value) == message


# The two forms of a name ---------------------------------------------------------------------------------------------
FORMS = [
    # written, canonical, familiar
    ("busybox", "docker.io/library/busybox", "busybox"),
    ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
    ("library/busybox", "docker.io/library/busybox", "busybox"),
    ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
    ("docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
    ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
    ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
    ("user/app", "docker.io/user/app", "user/app"),
    ("docker.io/user/app:x", "docker.io/user/app:x", "user/app:x"),
    ("library/a/b", "docker.io/library/a/b", "library/a/b"),
    ("localhost", "docker.io/library/localhost", "localhost"),
    ("localhost/app", "localhost/app", "localhost/app"),
    ("localhost:5000/app", "localhost:5000/app", "localhost:5000/app"),
    ("host/app", "docker.io/host/app", "host/app"),
    ("host:5000/app", "host:5000/app", "host:5000/app"),
    ("example.com/app", "example.com/app", "example.com/app"),
    ("example.com", "docker.io/library/example.com", "example.com"),
    ("127.0.0.1:5000/library/app", "127.0.0.1:5000/library/app", "127.0.0.1:5000/library/app"),
    ("Host/app", "Host/app", "Host/app"),
    ("[::1]:5000/app:1", "[::1]:5000/app:1", "[::1]:5000/app:1"),
    (f"busybox@{SHA256}", f"docker.io/library/busybox@{SHA256}", f"busybox@{SHA256}"),
]


@pytest.mark.parametrize(("text", "canonical", "familiar"), FORMS)
def test_a_name_has_a_canonical_and_a_familiar_form(text: str, canonical: str, familiar: str) -> None:
    found = parse_normalized(text)
    assert (str(found), found.familiar()) == (canonical, familiar)
    assert parse_normalized(canonical) == parse_normalized(familiar) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("docker.io/foo/Bar:x", "invalid reference format: repository name (foo/Bar) must be lowercase"),
        ("f" * 64, f"invalid repository name ({'f' * 64}), cannot specify 64-byte hexadecimal strings"),
        ("", FORMAT),
        ("a b", FORMAT),
        ("https://example.com/repo", FORMAT),
        ("-foo/bar", FORMAT),
        ("foo/bar-", FORMAT),
        ("_foo/bar", FORMAT),
        ("foo@bar", FORMAT),
        ("localhost:http/repo", FORMAT),
    ],
)
def test_what_is_no_name_is_refused(text: str, message: str) -> None:
    with pytest.raises(ReferenceFormatError) as caught:
        parse_normalized(text)
    assert str(caught.value) == message


def test_a_name_alone_means_latest() -> None:
    assert str(parse_normalized("busybox").with_default_tag()) == "docker.io/library/busybox:latest"
    assert parse_normalized("busybox:1").with_default_tag().tag == "1"
    assert parse_normalized(f"busybox@{SHA256}").with_default_tag().tag is None


@pytest.mark.parametrize("text", ["sha256", "sha256:", ":abc", "", "sha 256:aa", "sha256:" + "g" * 64])
def test_a_malformed_digest_is_refused(text: str) -> None:
    with pytest.raises(ReferenceFormatError, match=r"^invalid checksum digest format$"):
        check_digest(text)


# Of all of them ------------------------------------------------------------------------------------------------------
_ALPHANUMERIC = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=6)
_SEPARATOR = st.sampled_from([".", "_", "__", "-", "--"])
_COMPONENT = st.tuples(_ALPHANUMERIC, st.lists(st.tuples(_SEPARATOR, _ALPHANUMERIC), max_size=2)).map(
    lambda parts: parts[0] + "".join(separator + word for separator, word in parts[1])
)
_PATH = st.lists(_COMPONENT, min_size=1, max_size=4).map("/".join).filter(lambda path: len(path) <= MAX_PATH)
_HOST = st.sampled_from(["localhost", "example.com", "Host", "10.0.0.1", "[::1]", "docker.io", "a-b.c"])
_DOMAIN = st.tuples(_HOST, st.sampled_from(["", ":5000"])).map("".join)
_TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
_DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)
_REFERENCE = st.builds(Reference, _DOMAIN, _PATH, st.none() | _TAG, st.none() | _DIGEST)


@given(_REFERENCE)
def test_any_reference_is_read_as_it_was_written(reference: Reference) -> None:
    assert parse(str(reference)) == reference


@given(_REFERENCE)
def test_the_familiar_form_leads_back_to_the_canonical_one(reference: Reference) -> None:
    canonical = parse_normalized(str(reference))
    # A path that looks like a domain or an image ID cannot be written without its own domain: upstream's gap too.
    first = canonical.familiar_name.partition("/")[0]
    assume(first != "localhost" and not ("." in first and "/" in canonical.familiar_name))
    assume(len(canonical.familiar_name) != 64)
    if canonical.domain == "docker.io":
        assert parse_normalized(canonical.familiar()) == canonical
    assert parse_normalized(str(canonical)) == canonical


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        found = parse_normalized(text)
    except ReferenceFormatError:
        return
    assert parse_normalized(str(found)) == found
