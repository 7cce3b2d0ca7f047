from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar, Optional

DESCRIPTOR: _descriptor.FileDescriptor

class UserProfile(_message.Message):
    __slots__ = ["favorite_ice_cream", "favorite_show", "name"]
    FAVORITE_ICE_CREAM_FIELD_NUMBER: ClassVar[int]
    FAVORITE_SHOW_FIELD_NUMBER: ClassVar[int]
    NAME_FIELD_NUMBER: ClassVar[int]
    favorite_ice_cream: str
    favorite_show: str
    name: str
    def __init__(self, name: Optional[str] = ..., favorite_ice_cream: Optional[str] = ..., favorite_show: Optional[str] = ...) -> None: ...
