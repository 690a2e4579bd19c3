"""Operations on sealed flists."""
