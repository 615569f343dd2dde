"""The earlier place of ``Box``."""

from ntangent.pinn.domains.box import Box as Box
