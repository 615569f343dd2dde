"""What every layer shares: errors, argument checks, the registry, tolerances."""
