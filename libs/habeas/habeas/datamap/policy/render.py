"""The policy file as documents: record of processing activities (GDPR Art. 30(1)) and register of recipients.

Markdown, in the order of the file, the same text for the same file.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from habeas.datamap.policy.model import LawfulBasis, Policy, Purpose, Recipient, Safeguard
from habeas.datamap.policy.regimes import packaged

BASES: Final = {
    LawfulBasis.CONSENT: "consent, Art. 6(1)(a)",
    LawfulBasis.CONTRACT: "contract, Art. 6(1)(b)",
    LawfulBasis.LEGAL_OBLIGATION: "legal obligation, Art. 6(1)(c)",
    LawfulBasis.VITAL_INTERESTS: "vital interests, Art. 6(1)(d)",
    LawfulBasis.PUBLIC_TASK: "public task, Art. 6(1)(e)",
    LawfulBasis.LEGITIMATE_INTEREST: "legitimate interest, Art. 6(1)(f)",
}
SAFEGUARDS: Final = {
    Safeguard.ADEQUACY: "adequacy decision, Art. 45",
    Safeguard.SCC: "standard contractual clauses, Art. 46(2)(c)",
    Safeguard.BCR: "binding corporate rules, Art. 47",
    Safeguard.CODE_OF_CONDUCT: "code of conduct, Art. 46(2)(e)",
    Safeguard.CERTIFICATION: "certification, Art. 46(2)(f)",
    Safeguard.DEROGATION: "derogation, Art. 49",
}
TOLD_BY: Final = {"http": "HTTP", "kafka": "order on Kafka", "mail": "mail", "none": "not told"}
NOT_STATED: Final = "Not stated in the policy file."


def render_record(policy: Policy) -> str:
    """Render the record of processing activities; its sections follow Art. 30(1)(a)-(g)."""
    header, controller = policy.policy, policy.controller
    blocks = [
        "# Record of processing activities",
        f"Policy version {_cell(header.version)}. {_laws(policy)}",
        "## (a) Controller",
        _table(
            ("Controller", "Address", "Country", "Data protection officer", "Supervisory authority"),
            [
                (
                    controller.name,
                    controller.address or NOT_STATED,
                    controller.country,
                    controller.dpo,
                    controller.authority,
                )
            ],
        ),
        "## (b) Purposes",
        _table(
            ("Purpose", "Categories", "Lawful basis", "Interest or law", "Objection"),
            [_purpose_row(name, purpose) for name, purpose in policy.purposes.items()],
        ),
        "## (c) Data subjects and categories of data",
        f"Data subjects: {_cell(', '.join(policy.data_subjects))}.",
        _table(
            ("Category", "Data", "Source", "Portable", "Purposes"),
            [
                (
                    name,
                    ", ".join(category.data),
                    _words(category.source),
                    _words(category.portable),
                    ", ".join(key for key, purpose in policy.purposes.items() if name in purpose.categories),
                )
                for name, category in policy.categories.items()
            ],
        ),
        "## (d) Recipients",
        _recipients(policy),
        "## (e) Transfers to third countries",
        _transfers(policy),
        "## (f) Time limits for erasure",
        _table(("Retention class", "Kept"), [(name, each.in_words()) for name, each in policy.retention.items()]),
        "## (g) Security measures",
        "\n".join(f"- {_cell(measure)}" for measure in policy.security) or NOT_STATED,
        "## Automated decisions (Art. 22)",
        _decisions(policy),
    ]
    return "\n\n".join(blocks) + "\n"


def render_recipients(policy: Policy) -> str:
    """Render the register of recipients: who gets what, where, under which safeguard, and how they are told (Art. 19)."""
    blocks = [
        "# Register of recipients",
        f"{_cell(policy.controller.name)}, policy version {_cell(policy.version)}.",
        _recipients(policy),
        "## Transfers to third countries",
        _transfers(policy),
    ]
    return "\n\n".join(blocks) + "\n"


def _laws(policy: Policy) -> str:
    titles = "; ".join(packaged()[choice.name].title for choice in policy.regimes)
    ours = policy.answer_within.in_words()
    return f"Requests are answered within {ours}, or sooner where one of these asks for it: {_cell(titles)}."


def _purpose_row(name: str, purpose: Purpose) -> Sequence[str]:
    return (
        name,
        ", ".join(purpose.categories),
        BASES[purpose.basis],
        purpose.interest or purpose.law or "",
        purpose.objection or "",
    )


def _recipients(policy: Policy) -> str:
    if not policy.recipients:
        return "None."
    return _table(
        ("Recipient", "Role", "Categories", "Country", "Safeguard", "Told by"),
        [
            (
                recipient.name or name,
                _words(recipient.role),
                ", ".join(recipient.categories),
                recipient.country,
                SAFEGUARDS[recipient.safeguard] if recipient.safeguard else "",
                TOLD_BY[recipient.told_by],
            )
            for name, recipient in policy.recipients.items()
        ],
    )


def _transfers(policy: Policy) -> str:
    transfers = [(name, each) for name, each in policy.recipients.items() if _is_transfer(policy, each)]
    if not transfers:
        return "None."
    return _table(
        ("Recipient", "Country", "Safeguard"),
        [(each.name or name, each.country, _safeguard(policy, each)) for name, each in transfers],
    )


def _is_transfer(policy: Policy, recipient: Recipient) -> bool:
    """Whether data leaves the countries of the law under which the controller is established."""
    home = policy.controller.country
    inside = {home}
    for choice in policy.regimes:
        countries = packaged()[choice.name].countries
        inside |= set(countries) if home in countries else set()
    return recipient.country not in inside


def _safeguard(policy: Policy, recipient: Recipient) -> str:
    """What the file says, else whether the country itself is adequate under the controller's law."""
    if recipient.safeguard:
        return SAFEGUARDS[recipient.safeguard]
    home = policy.controller.country
    laws = [packaged()[choice.name] for choice in policy.regimes]
    adequate = any(home in law.countries and recipient.country in (law.latest.adequate or ()) for law in laws)
    return SAFEGUARDS[Safeguard.ADEQUACY] if adequate else NOT_STATED


def _decisions(policy: Policy) -> str:
    if not policy.decisions:
        return "None."
    return _table(
        ("Decision", "Categories", "Basis", "Logic", "Consequences", "Review by a person"),
        [
            (each.name, ", ".join(each.categories), each.basis, each.logic, each.consequences, each.review)
            for each in policy.decisions
        ],
    )


def _words(word: str) -> str:
    return word.replace("_", " ")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    flat = " ".join(text.split())
    for character in ("\\", "|", "<", "[", "*", "`"):
        flat = flat.replace(character, f"\\{character}")
    return flat
