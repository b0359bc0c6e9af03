"""Questions to a model's answers: several at once, turn by turn, resumable. An answer is kept when it is whole; a
failure is never an answer."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from evaluation import records
from evaluation.endpoint import Endpoint, Message, Parameters, Refused, Reply, concurrently
from evaluation.errors import EvaluationError
from evaluation.journal import Journal, utc_now
from evaluation.records import Answer, Question, Usage
from evaluation.sets import QuestionSet


def file(folder: Path, name: str) -> Path:
    """Where the answers of a model are."""
    if not name or "/" in name or name.startswith("."):
        raise EvaluationError(f"'{name}' cannot name a model's answers; use letters, digits, '-' and '.'.")
    return folder / "answers" / f"answer_{name}.jsonl"


class Answered(msgspec.Struct, kw_only=True):
    """How it went."""

    file: str
    name: str
    questions: int
    new: int
    cut: int
    """Ended at the limit of tokens."""
    empty: int


def answer(asked: QuestionSet, endpoint: Endpoint, **how: Any) -> Answered:
    """`answer_async` for who has no loop; the endpoint is closed afterwards."""

    async def whole() -> Answered:
        try:
            await endpoint.find_model()
            return await answer_async(asked, endpoint, **how)
        finally:
            await endpoint.close()

    return asyncio.run(whole())


async def answer_async(
    asked: QuestionSet,
    endpoint: Endpoint,
    *,
    path: Path,
    name: str,
    run_id: str,
    parameters: Parameters,
    at_once: int,
    tell: Callable[[int, int], None],
) -> Answered:
    """Answer what is not answered yet. Raises EvaluationError; what was answered before that is kept."""
    refused: list[tuple[Question, Refused]] = []
    with Journal(path) as journal:
        before = _kept(path, asked, parameters, endpoint.model) if path.stat().st_size else {}
        todo = [each for each in asked.questions if each.question_id not in before]
        done = len(asked.questions) - len(todo)

        async def one(question: Question) -> None:
            nonlocal done
            try:
                found = await _answer(question, endpoint, parameters)
            except Refused as failure:
                refused.append((question, failure))
                return
            about = {
                "name": name,
                "model": endpoint.model,
                "run_id": run_id,
                "question_set": asked.mark,
                "at": utc_now(),
            }
            journal.append(msgspec.structs.replace(found, **about))
            done += 1
            tell(done, len(asked.questions))

        await concurrently(todo, one, at_once)
    if refused:
        ids = records.some([question.question_id for question, _ in refused])
        raise EvaluationError(f"Questions {ids} are not answered: {refused[0][1]} The others are in {path}.")
    wanted = {each.question_id for each in asked.questions}
    kept = [each for each in records.answers(path).values() if each.question_id in wanted]
    return Answered(
        file=str(path),
        name=name,
        questions=len(kept),
        new=len(todo),
        cut=sum("length" in each.finish_reasons for each in kept),
        empty=sum(not all(turn.strip() for turn in each.says) for each in kept),
    )


async def _answer(question: Question, endpoint: Endpoint, parameters: Parameters) -> Answer:
    """One question, every turn of it."""
    messages: list[Message] = []
    replies: list[Reply] = []
    begun = time.monotonic()
    for ask in question.asks:
        messages.append({"role": "user", "content": ask})
        replies.append(await endpoint.ask(messages, parameters))
        messages.append({"role": "assistant", "content": replies[-1].text})
    used = [reply.usage for reply in replies if reply.usage is not None]
    turns = [reply.text for reply in replies]
    return Answer(
        question_id=question.question_id,
        answer_id=hashlib.sha256("\0".join(turns).encode()).hexdigest()[:16],
        text=turns[0] if len(turns) == 1 else "",
        turns=turns if len(turns) > 1 else [],
        parameters=msgspec.structs.asdict(parameters),
        finish_reasons=[reply.finish_reason for reply in replies],
        usage=Usage(
            input_tokens=sum(each.input_tokens for each in used), output_tokens=sum(each.output_tokens for each in used)
        )
        if len(used) == len(replies)
        else None,
        seconds=round(time.monotonic() - begun, 3),
    )


def _kept(path: Path, asked: QuestionSet, parameters: Parameters, model: str) -> dict[records.QuestionId, Answer]:
    """What is answered already. Raises EvaluationError where that was asked in another way."""
    kept = records.answers(path)
    for each in kept.values():
        if each.question_set and each.question_set != asked.mark:
            raise EvaluationError(
                f"{path} answers the question set {each.question_set}, not {asked.mark}; give another --name."
            )
        if each.parameters != msgspec.structs.asdict(parameters) or each.model != model:
            raise EvaluationError(f"{path} was answered by {each.model} with {each.parameters}; give another --name.")
    return kept
