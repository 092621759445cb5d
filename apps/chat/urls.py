"""Addresses of the pages. The API and the socket have their own."""

from django.urls import path

from apps.chat.views import ChatPage, LogInPage, LogOutPage

urlpatterns = [
    path("", ChatPage.as_view(), name="chat"),
    path("threads/<str:thread_id>/", ChatPage.as_view(), name="thread"),
    path("accounts/login/", LogInPage.as_view(), name="login"),
    path("accounts/logout/", LogOutPage.as_view(), name="logout"),
]
