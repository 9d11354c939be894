"""What users and plugin authors test with: gradients against differences, backends against NumPy.

A leaf of the library: nothing else imports it.
"""

from tinygradrnn.testing.check import check_backend
from tinygradrnn.testing.gradients import gradcheck, gradgradcheck
from tinygradrnn.testing.verify import Verification, verify_cell

__all__ = ["Verification", "check_backend", "gradcheck", "gradgradcheck", "verify_cell"]
