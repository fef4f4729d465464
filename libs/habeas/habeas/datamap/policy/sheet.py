"""The information sheet of an access reply (GDPR Art. 15(1)(a)-(h) and 15(2)), from the policy alone."""

from collections.abc import Mapping
from typing import Any

from habeas.datamap.policy.model import Policy


def information_sheet(policy: Policy) -> Mapping[str, Any]:
    """Give what a person must be told besides the data: one part per letter of Art. 15(1), then 15(2).

    Recipients are the actual ones (CJEU C-154/21), not kinds of recipients.
    """
    controller = policy.controller
    return {
        "policy_version": policy.version,
        "controller": {"name": controller.name, "country": controller.country, "contact": controller.dpo},
        "purposes": [
            {
                "purpose": name,
                "categories": list(purpose.categories),
                "lawful_basis": purpose.basis,
                "legitimate_interest": purpose.interest,
                "law": purpose.law,
            }
            for name, purpose in policy.purposes.items()
        ],
        "categories": {
            name: {"data": list(category.data), "source": category.source, "portable": category.portable}
            for name, category in policy.categories.items()
        },
        "recipients": [
            {
                "recipient": recipient.name or name,
                "role": recipient.role,
                "categories": list(recipient.categories),
                "country": recipient.country,
                "safeguard": recipient.safeguard,
            }
            for name, recipient in policy.recipients.items()
        ],
        "retention": {
            name: each.model_dump(mode="json", by_alias=True, exclude_none=True)
            for name, each in policy.retention.items()
        },
        "rights": [
            "access",
            "rectification",
            "erasure",
            "restriction of processing",
            "data portability",
            "objection",
            "withdrawal of consent at any time",
        ],
        "complaint": {"authority": controller.authority},
        "automated_decisions": [each.model_dump(mode="json") for each in policy.decisions],
    }
