"""Controls: interventions on a trained run's conditions, and the figures that measure their effect."""
