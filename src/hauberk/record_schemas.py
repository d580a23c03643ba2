"""The kinds of records, and the columns of each."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

RecordKind = Literal["attack", "certificate", "mix", "diagnosis", "fingerprint", "array", "votes", "plan"]
MEASURED: tuple[RecordKind, ...] = ("attack", "certificate", "mix", "diagnosis")
# of which function; numbers that many records share; votes that certificates rest on, and what was planned before
BESIDE: tuple[RecordKind, ...] = ("fingerprint", "array", "votes", "plan")
PICTURES = ("image", "adversarial")  # of an attack; an evaluation keeps as many as it is asked for

SCHEMAS: dict[RecordKind, pa.Schema] = {
    "attack": pa.schema([
        ("id", pa.int64()),
        ("label", pa.int64()),
        ("clean_prediction", pa.int64()),
        ("prediction", pa.int64()),
        ("success", pa.bool_()),  # some point of the threat, the image itself included, is misclassified
        ("distance", pa.float64()),  # of the returned point from the image, in the threat's norm
        ("loss", pa.float64()),
        ("logit_margin", pa.float64()),  # smallest z_y - max z_j seen
        ("probability_margin", pa.float64()),  # smallest p_y - max p_j seen
        ("nearest", pa.float64()),  # distance of the nearest misclassified point seen, whatever the budget; inf if none
        ("forwards", pa.int64()),
        ("backwards", pa.int64()),
        ("zero_gradients", pa.int64()),
        ("stopped", pa.string()),
        ("image", pa.binary()),  # float32, C order; kept for a few rows only, else null
        ("adversarial", pa.binary()),
        ("clean_probabilities", pa.list_(pa.float64())),
        ("probabilities", pa.list_(pa.float64())),  # at the returned point
        ("clean_draws", pa.list_(pa.int64())),  # of a random model: decisions of fresh draws at the image; else empty
        ("draws", pa.list_(pa.int64())),  # and at the returned point
    ]),
    "certificate": pa.schema([
        ("id", pa.int64()),
        ("label", pa.int64()),
        ("prediction", pa.int64()),  # -1 where it abstains
        ("radius", pa.float64()),
        ("evidence", pa.string()),  # JSON: what a stranger needs to derive the radius again
    ]),
    "mix": pa.schema([
        ("id", pa.int64()),
        ("label", pa.int64()),
        ("accurate_prediction", pa.int64()),
        ("robust_prediction", pa.int64()),
        ("accurate_logits", pa.list_(pa.float32())),  # of both models, times their scales
        ("robust_logits", pa.list_(pa.float32())),
        ("alpha_low", pa.float64()),  # the mix is right for alpha strictly between these two (NaN: never)
        ("alpha_high", pa.float64()),
        ("certified_alpha", pa.list_(pa.float64())),  # for each eps of the metadata: certified and right from here up
        ("evidence", pa.string()),  # JSON: of the robust model's certificate
    ]),
    "diagnosis": pa.schema([  # one row a check of an evaluation, not a sample
        ("id", pa.int64()),  # number of the check
        ("check", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("verdict", pa.string()),  # sound, questionable or broken
        ("reason", pa.string()),
        ("images", pa.int64()),
    ]),
    "fingerprint": pa.schema([  # what a model answers on fixed images
        ("id", pa.int64()),  # of an image of the data; below 0 it is noise
        ("logits", pa.list_(pa.float64())),  # of the model, and beside them of the models that it is made of
    ]),
    "votes": pa.schema([  # one row for each image and block of its votes under noise
        ("id", pa.int64()),
        ("purpose", pa.string()),  # counts0 choose the class, counts bound its probability
        ("start", pa.int64()),  # number of the block's first vote
        ("stop", pa.int64()),
        ("counts", pa.list_(pa.int64())),  # for each class
    ]),
    "plan": pa.schema([  # of votes, fixed before the first of them: one row
        ("id", pa.int64()),
        ("noise", pa.string()),  # JSON
        ("n0", pa.int64()),
        ("n", pa.int64()),
        ("alpha", pa.float64()),
        ("rule", pa.string()),  # fixed, randomised, looks with their numbers, or anytime: then any n may follow
        ("rival", pa.string()),
    ]),
    "array": pa.schema([  # shared evidence of many units, such as pairwise Lipschitz constants
        ("id", pa.int64()),  # number of the row
        ("values", pa.list_(pa.float64())),
    ]),
}

# what the key of a unit says of them
COLUMNS: dict[RecordKind, str] = {kind: schema.to_string() for kind, schema in SCHEMAS.items()}
