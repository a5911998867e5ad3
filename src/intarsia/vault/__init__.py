"""The project folder on disk: backbone, sources, compartments, and the index over them."""

from intarsia.vault.composing import WEIGHTS
from intarsia.vault.composition import Composition
from intarsia.vault.importing import Imported
from intarsia.vault.keyring import Identity
from intarsia.vault.meter import Allowance
from intarsia.vault.outcomes import ForgetPlan, Job, Outcome
from intarsia.vault.package import Core, find_package, make_package, read_core, write_package
from intarsia.vault.parts import PARTS
from intarsia.vault.payouts import Line, Period, Statement
from intarsia.vault.principals import KEEP, SCOPES, USUAL_SCOPES, Grant, Keep, Key, Principal, Quota
from intarsia.vault.records import CompartmentInfo, SourceInfo, Unfinished
from intarsia.vault.replay import Replay
from intarsia.vault.selecting import Decision, Selection
from intarsia.vault.tickets import Ticket
from intarsia.vault.vault import Vault
from intarsia.vault.verify import Problem, VerifyReport

__all__ = [
    "KEEP",
    "PARTS",
    "SCOPES",
    "USUAL_SCOPES",
    "WEIGHTS",
    "Allowance",
    "CompartmentInfo",
    "Composition",
    "Core",
    "Decision",
    "ForgetPlan",
    "Grant",
    "Identity",
    "Imported",
    "Job",
    "Keep",
    "Key",
    "Line",
    "Outcome",
    "Period",
    "Principal",
    "Problem",
    "Quota",
    "Replay",
    "Selection",
    "SourceInfo",
    "Statement",
    "Ticket",
    "Unfinished",
    "Vault",
    "VerifyReport",
    "find_package",
    "make_package",
    "read_core",
    "write_package",
]
