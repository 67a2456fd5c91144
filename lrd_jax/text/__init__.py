"""Text to tokens and back: tokenizers from a checkpoint's own files, chat templates, prompts, answers.

Neither torch nor a checkpoint's remote code is needed; the tokenizers library is imported when a tokenizer is loaded.
"""

from lrd_jax.text.answers import SettledText as SettledText
from lrd_jax.text.answers import answer_lengths as answer_lengths
from lrd_jax.text.answers import decode_text as decode_text
from lrd_jax.text.answers import first_stop as first_stop
from lrd_jax.text.answers import tokens_of as tokens_of
from lrd_jax.text.chat import Message as Message
from lrd_jax.text.chat import check_messages as check_messages
from lrd_jax.text.formats import CHAT_TEMPLATES as CHAT_TEMPLATES
from lrd_jax.text.holes import Piece as Piece
from lrd_jax.text.holes import encode_holes as encode_holes
from lrd_jax.text.holes import parse_holes as parse_holes
from lrd_jax.text.holes import texts_of_holes as texts_of_holes
from lrd_jax.text.prompts import UnknownWords as UnknownWords
from lrd_jax.text.prompts import bucket_length as bucket_length
from lrd_jax.text.prompts import check_text as check_text
from lrd_jax.text.prompts import encode_chat as encode_chat
from lrd_jax.text.prompts import encode_prompts as encode_prompts
from lrd_jax.text.prompts import encode_text as encode_text
from lrd_jax.text.prompts import left_pad as left_pad
from lrd_jax.text.prompts import pad_to_bucket as pad_to_bucket
from lrd_jax.text.prompts import require_tokenizer as require_tokenizer
from lrd_jax.text.prompts import starts_special as starts_special
from lrd_jax.text.prompts import token_ids as token_ids
from lrd_jax.text.prompts import unknown_words as unknown_words
from lrd_jax.text.tokenizer import Tokenizer as Tokenizer
from lrd_jax.text.tokenizer import has_tokenizer as has_tokenizer
from lrd_jax.text.tokenizer import load_tokenizer as load_tokenizer
