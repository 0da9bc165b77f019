"""Why prompts were lost, as a person reads it."""

from services.queues.items import DeadLetter, causes


def _letter(number: int, error: str) -> DeadLetter:
    prompt = f"demo.online/e1/p{number}"
    return DeadLetter(str(number), "rollouts", prompt, 1, 3, error.format(prompt), b"")


def test_causes_are_counted_whichever_prompt_and_number_they_name() -> None:
    letters = [
        _letter(1, "DataError: {} has 300 tokens, the engine holds 128"),
        _letter(2, "WorkerError: reward function my:score gave NoneType for {}, not a number"),
        _letter(3, "DataError: {} has 512 tokens, the engine holds 128"),
        _letter(4, "DataError: {} has 129 tokens, the engine holds 128"),
    ]
    assert causes(letters) == (
        "3 x DataError: a prompt has 300 tokens, the engine holds 128,"
        " 1 x WorkerError: reward function my:score gave NoneType for a prompt, not a number"
    )
    assert causes([]) == ""
