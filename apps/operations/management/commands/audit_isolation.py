"""`manage.py audit_isolation`: says whether every stored row and event belongs to its owner."""

from typing import override

from apps.operations.auditing import Audit, AuditCommand
from apps.operations.isolation import isolation_audit


class Command(AuditCommand):
    help = "Judge whether every stored row and event belongs to its owner. --fix blanks what the old bridge leaked."

    @override
    def audit(self) -> Audit:
        return isolation_audit()
