"""What must hold between the parts of a policy, and between the policy and the law."""

from collections.abc import Iterator

from habeas.datamap.explain import PathPart, dotted, one_of
from habeas.datamap.policy.model import Policy
from habeas.datamap.policy.regimes import Regime, packaged
from habeas.datamap.source import Located, Problem


def problems_of(policy: Policy, located: Located) -> list[Problem]:
    """List everything in which the policy contradicts itself or falls short of the law; empty when nothing does."""
    return [
        *_unknown_categories(policy, located),
        *_without_purpose(policy, located),
        *_regimes(policy, located),
        *_too_lax(policy, located),
        *_transfers(policy, located),
        *_children(policy, located),
        *_repeated_decisions(policy, located),
    ]


def _unknown_categories(policy: Policy, located: Located) -> Iterator[Problem]:
    """Every category that anything names must exist."""
    users: list[tuple[tuple[PathPart, ...], tuple[str, ...]]] = [
        *((("purposes", name), purpose.categories) for name, purpose in policy.purposes.items()),
        *((("recipients", name), recipient.categories) for name, recipient in policy.recipients.items()),
        *((("decisions", index), decision.categories) for index, decision in enumerate(policy.decisions)),
    ]
    for path, categories in users:
        for index, category in enumerate(categories):
            if category not in policy.categories:
                what = f"`{dotted(path)}` names `{category}`, which is no category"
                write = f"{one_of(category, policy.categories)}, or add it to `categories`"
                yield located.problem((*path, "categories", index), what, write)


def _without_purpose(policy: Policy, located: Located) -> Iterator[Problem]:
    """Data that no purpose uses must not be collected (Art. 5(1)(b))."""
    used = {category for purpose in policy.purposes.values() for category in purpose.categories}
    for category in policy.categories:
        if category not in used:
            what = f"no purpose uses `{category}` (Art. 5(1)(b))"
            yield located.problem(("categories", category), what, f"`{category}` in the `categories` of a purpose")


def _regimes(policy: Policy, located: Located) -> Iterator[Problem]:
    """Regimes are packaged ones, each once, and those of the controller's own country are among them."""
    seen: set[str] = set()
    for index, choice in enumerate(policy.regimes):
        if choice.name not in packaged():
            what = f"`{choice.name}` is no regime that is known"
            yield located.problem(("regimes", index), what, one_of(choice.name, packaged()))
        elif choice.name in seen:
            yield located.problem(("regimes", index), f"`{choice.name}` stands here twice", "each regime once")
        seen.add(choice.name)
    country = policy.controller.country
    for name, regime in packaged().items():
        if regime.establishment and country in regime.countries and name not in seen:
            what = f"`{name}` applies to a controller established in {country} ({regime.establishment})"
            yield located.problem(("regimes",), what, f"`{name}` in `regimes`")


def _chosen(policy: Policy) -> list[Regime]:
    return [packaged()[choice.name] for choice in policy.regimes if choice.name in packaged()]


def _too_lax(policy: Policy, located: Located) -> Iterator[Problem]:
    """A promise may be stricter than the law, never laxer (a period counts as laxer when it is at its longest).

    30 days are as strict as one month although February is shorter: the earlier of the two always counts.
    """
    ours = policy.answer_within
    for regime in _chosen(policy):
        law = regime.latest.answer
        if ours.days_longest > law.within.days_longest:
            what = f"`answer_within: {ours}` is laxer than {regime.regime} ({law.article}: {law.within.in_words()})"
            yield located.problem(("answer_within",), what, f"`{law.within}` or less")
    for index, choice in enumerate(policy.regimes):
        stricter = choice.answer_within
        if stricter is None or choice.name not in packaged():
            continue
        law = packaged()[choice.name].latest.answer
        if stricter.days_longest > law.within.days_longest:
            what = f"`{stricter}` is laxer than {choice.name} ({law.article}: {law.within.in_words()})"
            yield located.problem(("regimes", index, "answer_within"), what, f"`{law.within}` or less")


def _transfers(policy: Policy, located: Located) -> Iterator[Problem]:
    """A transfer out of the controller's legal area needs adequacy or another safeguard (Art. 44-49)."""
    home = policy.controller.country
    for regime in _chosen(policy):
        adequate = regime.latest.adequate
        if adequate is None or home not in regime.countries:
            continue
        for name, recipient in policy.recipients.items():
            if recipient.safeguard or recipient.country in {*regime.countries, *adequate}:
                continue
            what = (
                f"`{name}` gets data in {recipient.country}, a third country under {regime.regime}, without a safeguard"
            )
            yield located.problem(("recipients", name), what, "`safeguard: scc` (or another) beside it")


def _children(policy: Policy, located: Located) -> Iterator[Problem]:
    """The age may not be below what the law lets countries choose."""
    for regime in _chosen(policy):
        child = regime.latest.child
        if policy.children.under < child.at_least:
            what = f"`children.under: {policy.children.under}` is below {child.at_least} ({regime.regime}, {child.article})"
            lower = f", or the lower age of your country, down to `{child.at_least}`"
            write = f"`{child.under}`{lower if child.at_least < child.under else ''}"
            yield located.problem(("children", "under"), what, write)


def _repeated_decisions(policy: Policy, located: Located) -> Iterator[Problem]:
    names = [decision.name for decision in policy.decisions]
    for index, name in enumerate(names):
        if name in names[:index]:
            what = f"a decision `{name}` stands here already"
            yield located.problem(("decisions", index, "name"), what, "another name")
