"""What the system tests share: throw-away servers, repositories, and comparisons of whole clusters."""
