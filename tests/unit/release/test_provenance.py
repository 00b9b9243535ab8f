"""The provenance is an in-toto statement with SLSA's predicate, and says what the release was made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, UrlConstraints, model_validator
from pydantic_core import Url

from kgents.clock import SECOND
from release.model import Built, Image, Material
from release.provenance import statement
from release.source import Source, repository

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SUM = "ab" * 32
WHEEL = {"kgents-1.2.0-py3-none-any.whl": "cd" * 32}
Uri = Annotated[Url, UrlConstraints()]


class Strict(BaseModel):
    """Part of a statement, as https://slsa.dev/spec/v1.1/provenance and in-toto's specification have it."""

    model_config = ConfigDict(extra="forbid", strict=False)


class Descriptor(Strict):
    name: str | None = None
    uri: Uri | None = None
    digest: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{40,}$")]] | None = None

    @model_validator(mode="after")
    def something(self) -> Descriptor:
        assert self.uri or self.digest
        return self


class Subject(Strict):
    name: str
    digest: dict[Literal["sha256"], Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]


class Definition(Strict):
    buildType: Uri  # noqa: N815 - the specification's names
    externalParameters: dict[str, JsonValue]  # noqa: N815
    internalParameters: dict[str, JsonValue]  # noqa: N815
    resolvedDependencies: list[Descriptor]  # noqa: N815


class Builder(Strict):
    id: Uri
    version: dict[str, str]


class Metadata(Strict):
    invocationId: str  # noqa: N815
    startedOn: AwareDatetime  # noqa: N815
    finishedOn: AwareDatetime  # noqa: N815


class Details(Strict):
    builder: Builder
    metadata: Metadata


class Predicate(Strict):
    buildDefinition: Definition  # noqa: N815
    runDetails: Details  # noqa: N815


class Statement(Strict):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[Subject], Field(min_length=1)]
    predicateType: Literal["https://slsa.dev/provenance/v1"]  # noqa: N815
    predicate: Predicate


def source(remote: str = "https://github.com/example/kgents.git") -> Source:
    return Source(repository(remote), "refs/tags/v1.2.0", COMMIT, 1_700_000_000, "1.2.0")


def made(built: Built, of: Source | None = None) -> dict[str, Any]:
    return statement(of or source(), built, {"uv": "uv 1"}, 5 * SECOND, 8 * SECOND + 1)


@pytest.mark.parametrize("remote", ["https://github.com/example/kgents.git", "", "git@github.com:example/kgents"])
def test_it_has_the_form_that_is_specified(remote: str) -> None:
    bases = [Material("base image", SUM, uri="docker://registry.example.com/python:1")]
    built = Built(WHEEL, Image("kgents:1.2.0", SUM, bases), [Material("uv.lock", SUM)])
    Statement.model_validate(made(built, source(remote)))


def test_its_subjects_are_the_files_and_the_image() -> None:
    built = Built(WHEEL, Image("kgents:1.2.0", SUM, []), [])
    digests = {each["name"]: each["digest"]["sha256"] for each in made(built)["subject"]}
    assert digests == {**WHEEL, "kgents:1.2.0": SUM}


def test_it_names_the_commit_and_what_went_in() -> None:
    bases = [Material("base image", SUM, uri="docker://registry.example.com/python:1")]
    built = Built(WHEEL, Image("kgents:1.2.0", SUM, bases), [Material("uv.lock", SUM)])
    assert made(built)["predicate"]["buildDefinition"]["resolvedDependencies"] == [
        {
            "name": "source",
            "uri": "git+https://github.com/example/kgents.git@refs/tags/v1.2.0",
            "digest": {"gitCommit": COMMIT},
        },
        {"name": "uv.lock", "digest": {"sha256": SUM}},
        {"name": "base image", "uri": "docker://registry.example.com/python:1", "digest": {"sha256": SUM}},
    ]


def test_it_says_that_the_image_was_left_out() -> None:
    parameters = made(Built(WHEEL, None, []))["predicate"]["buildDefinition"]["externalParameters"]
    assert parameters == {
        "repository": "https://github.com/example/kgents.git",
        "ref": "refs/tags/v1.2.0",
        "commit": COMMIT,
        "version": "1.2.0",
        "image": "left out",
    }


def test_it_says_when_the_build_began_and_ended() -> None:
    metadata = made(Built(WHEEL, None, []))["predicate"]["runDetails"]["metadata"]
    assert (metadata["startedOn"], metadata["finishedOn"]) == ("1970-01-01T00:00:05Z", "1970-01-01T00:00:08Z")


@pytest.mark.parametrize(
    ("remote", "named"),
    [
        ("https://ann:secret@git.example.com:8443/kgents.git?key=secret", "https://git.example.com:8443/kgents.git"),
        ("ssh://git@git.example.com/kgents.git", "ssh://git.example.com/kgents.git"),
        ("git@git.example.com:team/kgents.git", "ssh://git.example.com/team/kgents.git"),
        ("/srv/git/kgents.git", "local"),
        ("../kgents", "local"),
        ("file:///srv/git/kgents.git", "local"),
        ("", "local"),
    ],
)
def test_a_repository_is_named_without_credentials_or_folders(remote: str, named: str) -> None:
    assert repository(remote) == named
