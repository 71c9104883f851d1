"""Small tokenizers with the special tokens and chat templates of well-known model families.

Templates are shortened from the families' own; what matters to masks (start token, headers, end
token, what follows it, what is refused or dropped) is kept.
"""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Answer the question. The answer is yes.\n\n### Instruction:\nSay hello.\n\n### Response:\n",
    "user assistant system Hello world! What is one plus one? It is two. [INST] [/INST]",
    "Good morning, how are you?\nI am fine.\n\nThank you very much indeed. 0123456789",
]

LLAMA3 = """\
{%- if not date_string is defined %}{%- if strftime_now is defined %}\
{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}{%- endif %}
{{- bos_token }}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "<|eot_id|>" }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}\
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

QWEN = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

THINKING = """\
{%- for message in messages %}
{%- if message.role == 'assistant' and not loop.last and '</think>' in message.content %}
{{- '<|im_start|>assistant\\n' + message.content.split('</think>')[-1].lstrip('\\n') }}
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

MISTRAL = """\
{{- bos_token }}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{%- if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + ' [/INST]' }}
{%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}
{%- endfor %}
"""

PLAIN = """\
{%- for message in messages %}{{- message.role + ': ' + message.content + '\\n\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}
"""

FINAL_END = """\
{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- else %}{{- eos_token }}{%- endif %}
"""


@cache
def tokenizer(
    template: str | None = None,
    *,
    special: tuple[str, ...] = (),
    bos: str | None = None,
    eos: str | None = None,
    adds_bos: bool = True,
) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    own = [token for token in (bos, eos) if token]
    trainer = BpeTrainer(
        vocab_size=500,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in (*own, *special)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS * 4, trainer)
    if bos and adds_bos:
        core.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=bos, eos_token=eos, chat_template=template
    )


def llama3() -> PreTrainedTokenizerFast:
    headers = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    return tokenizer(LLAMA3, special=headers, bos="<|begin_of_text|>", eos="<|end_of_text|>")


def llama3_base() -> PreTrainedTokenizerFast:
    """As Llama 3 base models come: no chat template, no padding token."""
    return tokenizer(None, bos="<|begin_of_text|>", eos="<|end_of_text|>")


def qwen(template: str = QWEN) -> PreTrainedTokenizerFast:
    return tokenizer(template, special=("<|im_start|>",), eos="<|im_end|>")


def mistral() -> PreTrainedTokenizerFast:
    return tokenizer(MISTRAL, bos="<s>", eos="</s>")


def plain() -> PreTrainedTokenizerFast:
    """A template without any end token."""
    return tokenizer(PLAIN, bos="<s>", eos="</s>")


def phi() -> PreTrainedTokenizerFast:
    """An end token after every turn, and another one after the last."""
    return tokenizer(
        FINAL_END, special=("<|end|>", "<|user|>", "<|assistant|>"), eos="<|endoftext|>"
    )


def nothing() -> PreTrainedTokenizerFast:
    """Neither start nor end token."""
    return tokenizer(None)
