"""The folder of the assignment is a course of nbgrader; call `nbgrader` here."""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "kdft"
# The experiment takes some 20 seconds on one core; a cell that never ends costs its points, and not your evening.
c.Execute.timeout = 900
c.Execute.interrupt_on_timeout = True
