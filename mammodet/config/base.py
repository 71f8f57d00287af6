"""What every section of the configuration shares: number ranges, and that unknown keys are refused."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=1, le=2**14)]


class Section(BaseModel):
    """Keys of one section; others are refused."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    def change(self, **values: Any) -> Self:
        """This section with other values, checked as a whole."""
        return type(self).model_validate({**dict(self), **values})
