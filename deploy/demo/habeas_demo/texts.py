"""Sentences of the demo platform: what people ask for and what they tell support. Some sign with name and address."""

TITLES = (
    "Reply to a landlord", "Summary of a lease", "Cover letter", "Recipe for six", "Tests for a parser", "Holidays",
    "Complaint about a parcel", "Translation of a manual", "SQL for a monthly report", "Speech for a wedding",
)  # fmt: skip
INTENTS = ("write", "summarise", "translate", "code", "plan")
PROMPTS = (
    "Write a firm but friendly answer to this letter. Sign it {name}, {email}.",
    "Summarise the attached lease in ten points, and tell me what to ask before I sign.",
    "Turn these notes into a speech of three minutes; it is for my sister's wedding.",
    "Write unit tests for the parser below. Cover empty input and very long lines.",
    "Plan nine days by train, with two rest days and no hotel above 90 a night.",
)
ANSWERS = (
    "Dear Sir or Madam, thank you for your letter of last week. The repairs were announced in writing. Regards, {name}",
    "1. The lease runs for two years. 2. Heating is billed apart. 3. Ask who pays for the boiler.",
    "Dear all, when she was seven she sold my bicycle; today I give her away for nothing.",
    "def test_empty_input_is_refused(): ...",
    "Day 1: arrive before noon, leave the luggage, walk along the river.",
)
SUBJECTS = (
    "An invoice has the wrong address",
    "Key stopped working",
    "Where are my credits?",
    "Login from a new device",
)
QUESTIONS = (
    "Hello, this is {name}. I log in from {ip} since yesterday and every call is refused. Write to {email}, please.",
    "My last invoice still shows the old street. The account is {email}. Many thanks, {name}",
)
REPLIES = (
    "Thank you for telling us. It is put right; please try again.",
    "We have sent the corrected document by mail.",
)
METRICS = ("reliability", "complexity", "satisfaction")
LOG_STATES = ("ok", "ok", "ok", "ok", "ok", "ok", "throttled", "failed")
SOURCES = ("api", "cli", "ide", "web")

PLANS = [("free", "Free", "0.00", 100), ("pro", "Pro", "20.00", 5_000), ("team", "Team", "90.00", 30_000)]
MODELS = [
    ("gpt-large", "openai", "GPT large", "0.0300"),
    ("gpt-small", "openai", "GPT small", "0.0040"),
    ("claude-large", "anthropic", "Claude large", "0.0320"),
    ("claude-small", "anthropic", "Claude small", "0.0030"),
    ("mistral-medium", "mistral", "Mistral medium", "0.0080"),
]
