"""What the judge is told. A change of words is a new VERSION: scores under other words are other scores. Pure."""

from evaluation.endpoint import Message
from evaluation.records import Question

VERSION = "1"

_SYSTEM = "You are a fair and precise judge of how well assistants answer people."
_LOOK_AT = {
    "coding": "Judge whether the code is right, complete and robust (trace it on small and odd inputs), then whether "
    "it is clear and well explained. Code that does not do what was asked cannot score high, however it is presented.",
    "math": "Work the problem out yourself first, in silence, then check each step of the answers. A wrong result "
    "cannot score high, however well it is presented; a right one needs steps that hold.",
}
_LOOK_AT_ALL = "Judge how helpful, relevant, accurate and detailed the answers are."
_PAIR = (
    "Give each assistant a score from 1 to 10; higher is better. Do not let length or the order in which the two are "
    "shown sway you. Write the two scores on the first line, alone: first the score of Assistant 1, then that of "
    "Assistant 2, separated by a space. Explain them from the second line on."
)
_SINGLE = (
    "Give the assistant a score from 1 to 10; higher is better. Do not let length sway you. Write the score on the "
    "first line, alone. Explain it from the second line on."
)
_AGAIN = {
    2: "Your scores could not be read. Reply with one line that holds two numbers from 1 to 10 and nothing else: the "
    "score of Assistant 1, a space, the score of Assistant 2.",
    1: "Your score could not be read. Reply with one line that holds one number from 1 to 10 and nothing else.",
}


def judge(question: Question, answers: list[list[str]]) -> list[Message]:
    """The request to judge one answer or to compare two, each as the assistant's turns."""
    parts = [] if len(question.asks) > 1 else [f"[Question]\n{question.asks[0]}\n"]
    if question.reference:
        parts.append(f"[Reference answer, right but not the only way]\n{question.reference}\n")
    for number, turns in enumerate(answers, 1):
        name = f"Assistant {number}" if len(answers) > 1 else "the assistant"
        parts.append(f"[Answer of {name}]\n{_told(question, turns)}\n[End of the answer of {name}]\n")
    parts += [_LOOK_AT.get(question.category, _LOOK_AT_ALL), _PAIR if len(answers) > 1 else _SINGLE]
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": "\n".join(parts)}]


def again(request: list[Message], reply: str, answers: int) -> list[Message]:
    """The second try: the judge sees what it wrote and is asked for the line alone; after nothing, asked as before."""
    if not reply.strip():
        return request
    return [*request, {"role": "assistant", "content": reply}, {"role": "user", "content": _AGAIN[answers]}]


def _told(question: Question, turns: list[str]) -> str:
    if len(question.asks) == 1:
        return turns[0]
    return "\n\n".join(f"Person: {ask}\nAssistant: {turn}" for ask, turn in zip(question.asks, turns, strict=True))
