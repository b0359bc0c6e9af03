"""Chat templates with the assistant's text marked. `{% generation %}` encloses what is trained on: every answer
with the token that ends it, and nothing else.
"""

from train.errors import TrainError

_VICUNA = (
    "{{ bos_token }}"
    "{% if messages[0].role == 'system' %}"
    "{{ messages[0].content }}{% set rest = messages[1:] %}"
    "{% else %}"
    "{{ 'A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions.' }}"
    "{% set rest = messages %}"
    "{% endif %}"
    "{% for m in rest %}"
    "{% if m.role == 'user' %}{{ ' USER: ' + m.content + ' ASSISTANT:' }}"
    "{% else %}{% generation %}{{ ' ' + m.content + eos_token }}{% endgeneration %}{% endif %}"
    "{% endfor %}"
)

_CHATML = (
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\\n' }}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_LLAMA2 = (
    "{% if messages[0].role == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}"
    "{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content + ' [/INST]' }}"
    "{% else %}{% generation %}{{ ' ' + m.content + ' ' + eos_token }}{% endgeneration %}{% endif %}"
    "{% endfor %}"
)

NAMED = {"vicuna": _VICUNA, "chatml": _CHATML, "llama2": _LLAMA2}


def choose(name: str, own: str | None) -> str:
    """The template called `name`; `own` is the tokenizer's, for the name `tokenizer`.

    Raises TrainError where the tokenizer's does not say which text is the assistant's.
    """
    if name != "tokenizer":
        return NAMED[name]
    if own is None or ("generation %}" not in own and "generation -%}" not in own):
        raise TrainError(
            "The tokenizer's own chat template does not mark the assistant's text with {% generation %}; "
            f"set model.template to one of {', '.join(NAMED)}."
        )
    return own


def without_marks(template: str) -> str:
    """The template as it is exported: some loaders do not know the marks, and only training needs them."""
    for mark in ("{% generation %}", "{% endgeneration %}", "{%- generation -%}", "{%- endgeneration -%}"):
        template = template.replace(mark, "")
    return template
