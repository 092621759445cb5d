"""What every page of the console says before anything else."""

from typing import Any

from django import template

from apps.rollout.console import warnings
from apps.rollout.pages import seam_address

register = template.Library()


@register.inclusion_tag("rollout/_warnings.html")
def rollout_warnings() -> dict[str, Any]:
    """A line for each seam that is known to leak and serves somebody by its old path, or is latched."""
    return {"warnings": [(text, seam_address(name)) for name, text in warnings()]}
