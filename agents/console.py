"""What the console's pages are built on, imported from here alone: another look is one file's change.
To a type checker they are Django's own, because it cannot see into unfold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from django.contrib.admin import ModelAdmin
    from django.contrib.admin.views.main import ChangeList
    from django.forms import ModelForm

    Method = TypeVar("Method", bound=Callable[..., Any])

    def action(**options: Any) -> Callable[[Method], Method]: ...
    def display(**options: Any) -> Callable[[Method], Method]: ...
else:
    from django.forms import ModelForm as DjangoForm
    from unfold.admin import ModelAdmin as UnfoldAdmin
    from unfold.decorators import action, display
    from unfold.views import ChangeList

    class OfModel:
        """So that `ModelAdmin[Agent]` may be written."""

        def __class_getitem__(cls, model: Any) -> type:
            return cls

    class ModelAdmin(OfModel, UnfoldAdmin):
        pass

    class ModelForm(OfModel, DjangoForm):
        pass


__all__ = ["ChangeList", "ModelAdmin", "ModelForm", "action", "display"]
